/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One program for all stages: entry remembers the call by thread, return adds to a log2 histogram; the end of
 * the stage that is the whole fault streams a record with the time that each inner stage took.
 *
 * Which stages there are, and which functions they are attached to, is data: stages.py, which also puts their
 * enum and STAGE_WHOLE before this text. What is known only once the driver is loaded is in the state. A stage is one line: at the end of this file those of every driver, in
 * probes_DRIVER.c its own, which follow this text.
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
#include <linux/sched.h>

/* 16 buckets for each power of two: values are known to 6 %. */
#define FINE_BITS 4
#define BUCKETS (37 << FINE_BITS)
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
	/* Works of this function are faults. Where such a work has its token and sub-type: 0 bytes if nobody knows. */
	u64 queued_function;
	s64 token_at;
	u64 token_bytes;
	s64 sub_type_at;
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

/* A whole fault; inner stages begin `at` after its start, 0 ns long if there was none. */
struct record {
	u64 start_ns;
	u64 duration_ns;
	u64 address;
	u64 length;
	u64 token;
	u64 queued_ns;
	s32 pages;
	u32 cpu;
	u32 pid;
	u32 sub_type;
	u64 inner_at[INNER];
	u64 inner_ns[INNER];
};

/* Memory that a call is about. */
struct extent {
	u64 address;
	u64 length;
};

enum {
	SLOT_lookup, SLOT_invalidate, SLOT_translate, SLOT_work, SLOT_resume, SLOT_key, SLOT_hmm, SLOT_umr,
	SLOT_prefetch, SLOT_prefetch_work, SLOT_deregister, SLOT_task, SLOT_copy, SLOT_check, SLOTS = 16
};

/* Where the pages come from: the return value; the call's AMOUNT, if the return value is no error, or in any case;
 * its extent.
 */
enum { RETURNED, STATUS, GIVEN, EXTENT };

BPF_ARRAY(state, struct state, 1);
BPF_HASH(calls, u64, struct call, 1024);
BPF_HASH(open, u64, struct record, 1024);
/* Works on their way, by address: when they were queued. */
BPF_HASH(queued, u64, u64, 4096);
/* When this CPU's interrupt came. */
BPF_PERCPU_ARRAY(interrupts, u64, 1);
BPF_RINGBUF_OUTPUT(records, 256);

static __always_inline u32 side_of(struct state *s, u64 first, u64 end)
{
	if (first < s->end[0] && end > s->start[0])
		return 0;
	if (first < s->end[1] && end > s->start[1])
		return 1;
	return SIDE_OTHER;
}

static __always_inline u64 bucket_of(u64 ns)
{
	u64 power;

	if (ns < 1 << FINE_BITS)
		return ns;
	power = bpf_log2l(ns) - 1 - FINE_BITS;
	return ((power + 1) << FINE_BITS) + ((ns >> power) & ((1 << FINE_BITS) - 1));
}

static __always_inline void add(struct stage *stage, u32 side, u64 ns, s64 pages)
{
	u64 bucket = bucket_of(ns);

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

/* A work starts: how long it waited, 0 if nobody saw it queued. */
static __always_inline u64 started(struct pt_regs *ctx)
{
	u64 work = PT_REGS_PARM1(ctx), ns = 0;
#ifdef STAGE_QUEUED
	u32 zero = 0;
	struct state *s = state.lookup(&zero);
	u64 *since = queued.lookup(&work);

	if (!s || !s->armed || !since)
		return 0;
	ns = bpf_ktime_get_ns() - *since;
	queued.delete(&work);
	add(&s->stages[STAGE_QUEUED], SIDE_OTHER, ns, 0);
	__sync_fetch_and_add(&s->left, 1);
#endif
	return ns;
}

static __always_inline void identify(struct state *s, struct record *record, u64 work)
{
	u64 token = 0;
	u8 sub_type = 0;

	if (!s->token_bytes)
		return;
	if (s->token_bytes == sizeof(u32))
		bpf_probe_read_kernel(&token, sizeof(u32), (void *)work + s->token_at);
	else
		bpf_probe_read_kernel(&token, sizeof(u64), (void *)work + s->token_at);
	bpf_probe_read_kernel(&sub_type, sizeof(sub_type), (void *)work + s->sub_type_at);
	record->token = token;
	record->sub_type = sub_type;
}

/* Second in struct ib_umem, with which struct ib_umem_odp begins. Their header does not compile for BPF.
 * Ref: Linux 6.1 and 7.3 include/rdma/ib_umem.h
 */
#define OWNING_MM_AT 8

/* The process whose memory it is: not the one that runs. */
static __always_inline u32 owner(void *umem_odp)
{
	struct mm_struct *mm = NULL;
	struct task_struct *task = NULL;
	u32 pid = 0;

	bpf_probe_read_kernel(&mm, sizeof(mm), umem_odp + OWNING_MM_AT);
	bpf_probe_read_kernel(&task, sizeof(task), &mm->owner);
	bpf_probe_read_kernel(&pid, sizeof(pid), &task->tgid);
	return pid;
}

static __always_inline void enter(struct pt_regs *ctx, u64 waited, u32 slot, u32 stage, struct extent extent, s64 amount)
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
		record.queued_ns = waited;
		identify(s, &record, PT_REGS_PARM1(ctx));
		open.update(&thread, &record);
	}
	if (stage == STAGE_FAULTS) {
		struct record *record = open.lookup(&thread);

		if (record)
			record->pid = owner((void *)PT_REGS_PARM1(ctx));
	}
	calls.update(&key, &call);
}

static __always_inline int inside(u32 slot)
{
	u64 key = bpf_get_current_pid_tgid() * SLOTS + slot;

	return calls.lookup(&key) != NULL;
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
		if (call->stage < INNER) {
			/* The verifier follows a mask, not a comparison of what was read before. */
			u64 stage = call->stage & (INNER - 1);

			if (!record->inner_ns[stage])
				record->inner_at[stage] = call->start_ns - record->start_ns;
			record->inner_ns[stage] += ns;
		}
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
 * of pages known at the call, negative where the call itself tells of a failure. WHEN says which calls are meant.
 */
#ifdef EMPTY
#define SPAN_WHEN(WHEN, WAITED, name, arguments...)					\
int enter_##name(struct pt_regs *ctx) { return 0; }					\
int leave_##name(struct pt_regs *ctx) { return 0; }
#else
#define SPAN_WHEN(WHEN, WAITED, name, STAGE, EXTENT_, AMOUNT, SOURCE)			\
int enter_##name(struct pt_regs *ctx)							\
{											\
	u64 waited = WAITED;								\
											\
	if (WHEN)									\
		enter(ctx, waited, SLOT_##name, STAGE, EXTENT_, AMOUNT);		\
	return 0;									\
}											\
int leave_##name(struct pt_regs *ctx)							\
{											\
	leave(SLOT_##name, SOURCE, PT_REGS_RC(ctx));					\
	return 0;									\
}
#endif
#define SPAN(arguments...) SPAN_WHEN(1, 0, arguments)
#define SPAN_OF_WORK(arguments...) SPAN_WHEN(1, started(ctx), arguments)
#define NOWHERE extent(0, 0)

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

/* Of every driver. */
SPAN(lookup, (u8)PT_REGS_PARM5(ctx) ? STAGE_FAULTS : STAGE_SNAPSHOTS,
     extent(PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx)), 0, RETURNED)
SPAN_WHEN(inside(SLOT_lookup), 0, hmm, STAGE_HMM, NOWHERE, 0, STATUS)
SPAN(invalidate, STAGE_INVALIDATIONS, told((void *)PT_REGS_PARM2(ctx)), 0, EXTENT)
SPAN(prefetch, STAGE_PREFETCHES, NOWHERE, 0, STATUS)
SPAN(prefetch_work, STAGE_PREFETCH_WORKS, NOWHERE, 0, GIVEN)
SPAN(deregister, STAGE_DEREGISTRATIONS, NOWHERE, 0, STATUS)

#ifdef STAGE_QUEUED
/* Ref: Linux 7.3 include/trace/events/workqueue.h: (req_cpu, pwq, work); the same in 6.1 */
RAW_TRACEPOINT_PROBE(workqueue_queue_work)
{
	struct work_struct *work = (struct work_struct *)ctx->args[2];
	u64 key = (u64)work, now, *since, function = 0;
	u32 zero = 0;
	struct state *s = state.lookup(&zero);

	if (!s || !s->armed)
		return 0;
	bpf_probe_read_kernel(&function, sizeof(function), &work->func);
	if (function != s->queued_function)
		return 0;
	now = bpf_ktime_get_ns();
	__sync_fetch_and_add(&s->entered, 1);
	queued.update(&key, &now);
	since = interrupts.lookup(&zero);
	if (since && *since)
		add(&s->stages[STAGE_DISPATCHES], SIDE_OTHER, now - *since, 0);
	return 0;
}
#endif
