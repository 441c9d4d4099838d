/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One program for all stages: entry remembers the call by thread, return adds to a log2 histogram and, for
 * faults, streams a record.
 *
 * Kprobes and not fentry: fentry programs can be preempted, and the kernel skips a program that another
 * thread of the same CPU is inside of (seen: 2 of 2000 faults lost on one CPU). Kprobes run with preemption
 * off. What is lost all the same shows as `entered` without `left`.
 *
 * No filter by process: soft-RoCE faults in kernel workers. Counting is armed by the case, and split by
 * the two regions' address ranges; what lies in neither counts as SIDE_OTHER.
 */
#include <uapi/linux/ptrace.h>

#define BUCKETS 40
#define SIDE_OTHER 2
#define SIDES 3

enum { STAGE_FAULT, STAGE_SNAPSHOT, STAGE_INVALIDATION, STAGES };

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
	u64 stage;
};

struct record {
	u64 start_ns;
	u64 duration_ns;
	u64 address;
	u64 length;
	s32 pages;
	u32 cpu;
};

/* Ref: Linux 7.3 include/linux/mmu_notifier.h, struct mmu_notifier_range, its first three members */
struct notifier_range {
	void *mm;
	unsigned long start;
	unsigned long end;
};

BPF_ARRAY(state, struct state, 1);
BPF_HASH(calls, u64, struct call, 1024);
BPF_RINGBUF_OUTPUT(records, 64);

static __always_inline u64 key_of(u32 stage)
{
	return bpf_get_current_pid_tgid() << 1 | (stage == STAGE_INVALIDATION);
}

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

static __always_inline void enter(u32 stage, u64 address, u64 length)
{
	u32 zero = 0;
	struct state *s = state.lookup(&zero);
	struct call call = {};
	u64 key = key_of(stage);

	if (!s || !s->armed)
		return;
	call.stage = stage;
	call.address = address;
	call.length = length;
	__sync_fetch_and_add(&s->entered, 1);
	call.start_ns = bpf_ktime_get_ns();
	calls.update(&key, &call);
}

int enter_map(struct pt_regs *ctx)
{
	enter((u8)PT_REGS_PARM5(ctx) ? STAGE_FAULT : STAGE_SNAPSHOT, PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx));
	return 0;
}

int leave_map(struct pt_regs *ctx)
{
	u64 now = bpf_ktime_get_ns();
	u32 zero = 0;
	u64 key = key_of(STAGE_FAULT);
	struct state *s = state.lookup(&zero);
	struct call *call = calls.lookup(&key);
	struct record record = {};
	u32 side;

	if (!s || !s->armed || !call)
		return 0;
	record.start_ns = call->start_ns;
	record.duration_ns = now - call->start_ns;
	record.address = call->address;
	record.length = call->length;
	record.pages = PT_REGS_RC(ctx);
	record.cpu = bpf_get_smp_processor_id();
	side = side_of(s, record.address, record.address + record.length);
	__sync_fetch_and_add(&s->left, 1);
	if (call->stage == STAGE_SNAPSHOT) {
		add(&s->stages[STAGE_SNAPSHOT], side, record.duration_ns, record.pages);
	} else {
		add(&s->stages[STAGE_FAULT], side, record.duration_ns, record.pages);
		if (records.ringbuf_output(&record, sizeof(record), BPF_RB_NO_WAKEUP))
			__sync_fetch_and_add(&s->lost, 1);
	}
	calls.delete(&key);
	return 0;
}

int enter_invalidate(struct pt_regs *ctx)
{
	struct notifier_range told = {};

	bpf_probe_read_kernel(&told, sizeof(told), (void *)PT_REGS_PARM2(ctx));
	enter(STAGE_INVALIDATION, told.start, told.end - told.start);
	return 0;
}

int leave_invalidate(struct pt_regs *ctx)
{
	u64 now = bpf_ktime_get_ns();
	u32 zero = 0;
	u64 key = key_of(STAGE_INVALIDATION);
	struct state *s = state.lookup(&zero);
	struct call *call = calls.lookup(&key);

	if (!s || !s->armed || !call)
		return 0;
	__sync_fetch_and_add(&s->left, 1);
	add(&s->stages[STAGE_INVALIDATION], side_of(s, call->address, call->address + call->length),
	    now - call->start_ns, call->length >> 12);
	calls.delete(&key);
	return 0;
}
