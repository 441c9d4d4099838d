/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One program for all stages: entry remembers the call by thread, return adds to a log2 histogram; the end of
 * the stage that is the whole fault streams a record with the time that each inner stage took.
 *
 * Which stages there are, and which functions they are attached to, is data: stages.py, which also puts their
 * enum and STAGE_WHOLE before this text. A stage is one line at the end of this file.
 *
 * Kprobes and not fentry: fentry programs can be preempted, and the kernel skips a program that another
 * thread of the same CPU is inside of (seen: 2 of 2000 faults lost on one CPU). Kprobes run with preemption
 * off. What is lost all the same shows as `entered` without `left`. The other way round in an interrupt: the
 * kernel skips a kprobe that hits while another runs on that CPU, and nothing preempts a trampoline there.
 *
 * No filter by process: faults are resolved in kernel workers. Counting is armed by the case, and split by
 * the two regions' address ranges; what lies in neither, or has no address, counts as SIDE_OTHER.
 */
#include <uapi/linux/ptrace.h>
/* The kernel's own: Linux 6.1 has one member more before the addresses. */
#include <linux/mmu_notifier.h>

#define BUCKETS 40
#define SIDE_OTHER 2
#define SIDES 3

struct stage {
	u64 calls[SIDES];
	u64 pages[SIDES];
	u64 failed;
	u64 total_ns;
	u64 minimum_ns;
	u64 maximum_ns;
	u64 buckets[BUCKETS];
};

struct state {
	u64 armed;
	u64 lost;
	u64 entered;
	u64 left;
	u64 start[2];
	u64 end[2];
	struct stage stages[STAGES];
};

/* A call under way, by thread and probe: a fault that copies a page is invalidated from inside. */
struct call {
	u64 start_ns;
	u64 address;
	u64 length;
	s64 amount;
	u64 stage;
};

struct record {
	u64 start_ns;
	u64 duration_ns;
	u64 address;
	u64 length;
	s32 pages;
	u32 cpu;
	u64 inner_ns[STAGES];
};

/* Memory that a call is about. */
struct extent {
	u64 address;
	u64 length;
};

enum { SLOT_lookup, SLOT_invalidate, SLOT_translate, SLOT_work, SLOT_resume, SLOTS = 8 };

/* Where the pages come from: the return value; the call's AMOUNT, if the return value is no error, or in any case;
 * its extent.
 */
enum { RETURNED, STATUS, GIVEN, EXTENT };

BPF_ARRAY(state, struct state, 1);
BPF_HASH(calls, u64, struct call, 1024);
BPF_HASH(open, u64, struct record, 1024);
BPF_RINGBUF_OUTPUT(records, 128);

static __always_inline u32 side_of(struct state *s, u64 first, u64 end)
{
	if (first < s->end[0] && end > s->start[0])
		return 0;
	if (first < s->end[1] && end > s->start[1])
		return 1;
	return SIDE_OTHER;
}

static __always_inline void add(struct stage *stage, u32 side, u64 ns, s64 pages)
{
	u64 bucket = ns ? bpf_log2l(ns) - 1 : 0;

	if (bucket >= BUCKETS)
		bucket = BUCKETS - 1;
	if (side > SIDE_OTHER)
		return;
	__sync_fetch_and_add(&stage->buckets[bucket], 1);
	__sync_fetch_and_add(&stage->calls[side], 1);
	__sync_fetch_and_add(&stage->total_ns, ns);
	if (pages < 0)
		__sync_fetch_and_add(&stage->failed, 1);
	else
		__sync_fetch_and_add(&stage->pages[side], pages);
	if (ns < stage->minimum_ns)
		stage->minimum_ns = ns;
	if (ns > stage->maximum_ns)
		stage->maximum_ns = ns;
}

static __always_inline void enter(u32 slot, u32 stage, struct extent extent, s64 amount)
{
	u32 zero = 0;
	struct state *s = state.lookup(&zero);
	u64 thread = bpf_get_current_pid_tgid();
	u64 key = thread * SLOTS + slot;
	struct call call = {};

	if (!s || !s->armed)
		return;
	call.stage = stage;
	call.address = extent.address;
	call.length = extent.length;
	call.amount = amount;
	__sync_fetch_and_add(&s->entered, 1);
	call.start_ns = bpf_ktime_get_ns();
	if (stage == STAGE_WHOLE) {
		struct record record = {};

		record.start_ns = call.start_ns;
		open.update(&thread, &record);
	}
	calls.update(&key, &call);
}

/* The fault that this thread is in, if it is in one, learns of a stage's end. */
static __always_inline void note(struct state *s, u64 thread, struct call *call, u64 ns, s64 pages)
{
	struct record *record = open.lookup(&thread);

	if (!record)
		return;
	if (call->stage == STAGE_FAULTS) {
		record->address = call->address;
		record->length = call->length;
		record->pages = pages;
	}
	if (call->stage != STAGE_WHOLE) {
		if (call->stage < STAGES)
			record->inner_ns[call->stage] += ns;
		return;
	}
	record->duration_ns = ns;
	record->cpu = bpf_get_smp_processor_id();
	if (records.ringbuf_output(record, sizeof(*record), BPF_RB_NO_WAKEUP))
		__sync_fetch_and_add(&s->lost, 1);
	open.delete(&thread);
}

static __always_inline void leave(u32 slot, u32 source, s32 returned)
{
	u64 now = bpf_ktime_get_ns();
	u32 zero = 0;
	struct state *s = state.lookup(&zero);
	u64 thread = bpf_get_current_pid_tgid();
	u64 key = thread * SLOTS + slot;
	struct call *call = calls.lookup(&key);
	u64 ns;
	s64 pages;

	if (!s || !s->armed || !call)
		return;
	ns = now - call->start_ns;
	if (source == RETURNED || (source == STATUS && returned < 0))
		pages = returned;
	else
		pages = source == EXTENT ? call->length >> 12 : call->amount;
	if (call->stage < STAGES)
		add(&s->stages[call->stage], side_of(s, call->address, call->address + call->length), ns, pages);
	note(s, thread, call, ns, pages);
	calls.delete(&key);
	/* Last: who waits for this reads everything else then. */
	__sync_fetch_and_add(&s->left, 1);
}

/*
 * A call and its return. STAGE may depend on the arguments; EXTENT_ is the memory it is about; AMOUNT is a number
 * of pages known at the call, negative where the call itself tells of a failure.
 */
#define SPAN(name, STAGE, EXTENT_, AMOUNT, SOURCE)					\
int enter_##name(struct pt_regs *ctx)							\
{											\
	enter(SLOT_##name, STAGE, EXTENT_, AMOUNT);					\
	return 0;									\
}											\
int leave_##name(struct pt_regs *ctx)							\
{											\
	leave(SLOT_##name, SOURCE, PT_REGS_RC(ctx));					\
	return 0;									\
}

static __always_inline struct extent extent(u64 address, u64 length)
{
	struct extent made = { address, length };

	return made;
}

static __always_inline struct extent told(void *where)
{
	struct mmu_notifier_range range = {};

	bpf_probe_read_kernel(&range, sizeof(range), where);
	return extent(range.start, range.end - range.start);
}

/* Ref: Linux 7.3 drivers/infiniband/hw/mlx5/mlx5_ib.h, MLX5_IB_UPD_XLT_ZAP */
#define ZAP 1

SPAN(lookup, (u8)PT_REGS_PARM5(ctx) ? STAGE_FAULTS : STAGE_SNAPSHOTS,
     extent(PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx)), 0, RETURNED)
SPAN(invalidate, STAGE_INVALIDATIONS, told((void *)PT_REGS_PARM2(ctx)), 0, EXTENT)
SPAN(translate, PT_REGS_PARM5(ctx) & ZAP ? STAGE_ZAPS : STAGE_TRANSLATIONS, extent(0, 0),
     (s32)PT_REGS_PARM3(ctx), STATUS)
SPAN(work, STAGE_WORKS, extent(0, 0), 0, GIVEN)
SPAN(resume, STAGE_RESUMES, extent(0, 0), (s32)PT_REGS_PARM3(ctx) ? -1 : 0, GIVEN)

#ifdef EVENT_SYMBOL
/* Ref: Linux 7.3 include/linux/mlx5/device.h, struct mlx5_eqe: its second byte is the type; enum mlx5_event */
#define PAGE_FAULT 0xc
#define EXIT(module, symbol, arguments...) MODULE_KRETFUNC_PROBE(module, symbol, arguments)

EXIT(EVENT_MODULE, EVENT_SYMBOL, void *eq, void *consumer, void *ret)
{
	u32 zero = 0;
	struct state *s = state.lookup(&zero);
	u8 type = 0;

	if (!s || !s->armed || !ret)
		return 0;
	bpf_probe_read_kernel(&type, sizeof(type), ret + 1);
	if (type == PAGE_FAULT)
		__sync_fetch_and_add(&s->stages[STAGE_EVENTS].calls[SIDE_OTHER], 1);
	return 0;
}
#endif
