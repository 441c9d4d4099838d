/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One BPF program for all stages. The entry probe saves the call by thread; the return probe adds
 * its duration to a log2 histogram. The end of the stage which is the whole fault sends a record
 * with the time of each inner stage.
 *
 * The stages and the functions which they probe are a table in stages.py, which also prepends
 * their enum and STAGE_WHOLE to this text. Values known only once the driver is loaded are in
 * struct state. A stage is one line: stages of all drivers are at the end of this file, those of
 * one driver in probes_DRIVER.c, which is appended.
 *
 * Kprobes instead of fentry: fentry programs can be preempted, and the kernel skips a program
 * which already runs in another thread of the same CPU (measured: 2 of 2000 faults lost on one
 * CPU). Kprobes run with preemption off. Calls that are lost all the same show as `entered`
 * without `left`. In an interrupt fentry is better: the kernel skips a kprobe that hits while
 * another one runs on that CPU, and nothing preempts a trampoline there.
 *
 * There is no filter by process, as faults are resolved in kernel workers. The case arms the
 * counters. They are split by the address ranges of the two regions; a call in neither range, or
 * without an address, counts as SIDE_OTHER.
 */
#include <uapi/linux/ptrace.h>
/* From the kernel's headers: in Linux 6.1 one more member precedes the addresses. */
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
	/*
	 * A work with this function is a fault. Token and sub-type are at these offsets from
	 * the work. If they are unknown, token_bytes is 0.
	 */
	u64 queued_function;
	s64 token_at;
	u64 token_bytes;
	s64 sub_type_at;
	struct stage stages[STAGES];
};

/* A call in progress, by thread and probe: a fault that copies a page nests an invalidation. */
struct call {
	u64 start_ns;
	u64 address;
	u64 length;
	s64 amount;
	u64 stage;
};

/* A whole fault. Inner stages start inner_at ns after it; inner_ns is 0 if there was none. */
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

/* The memory range of a call. */
struct extent {
	u64 address;
	u64 length;
};

enum {
	SLOT_lookup, SLOT_invalidate, SLOT_translate, SLOT_work, SLOT_resume, SLOT_key, SLOT_hmm,
	SLOT_umr, SLOT_prefetch, SLOT_prefetch_work, SLOT_deregister, SLOT_task, SLOT_copy,
	SLOT_check, SLOTS = 16
};

/*
 * Source of the number of pages: the return value (RETURNED); AMOUNT unless the return value is
 * an error (STATUS); AMOUNT always (GIVEN); the length of the range (EXTENT).
 */
enum { RETURNED, STATUS, GIVEN, EXTENT };

BPF_ARRAY(state, struct state, 1);
BPF_HASH(calls, u64, struct call, 1024);
BPF_HASH(open, u64, struct record, 1024);
/* Time at which a work was queued, by its address. */
BPF_HASH(queued, u64, u64, 4096);
/* Time at which the interrupt of this CPU started. */
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

/* A work starts: return the time since it was queued, 0 if that was not seen. */
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

/*
 * Second member of struct ib_umem, which is the first of struct ib_umem_odp. Their header does not
 * compile for BPF.
 * Ref: Linux 6.1 and 7.3 include/rdma/ib_umem.h
 */
#define OWNING_MM_AT 8

/* The process which owns the memory, not the running one. */
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

static __always_inline void enter(struct pt_regs *ctx, u64 waited, u32 slot, u32 stage,
				  struct extent extent, s64 amount)
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

/* A stage ended: add it to the fault which this thread handles, if any. */
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
			/* The verifier tracks a mask, but not the comparison above. */
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
		add(&s->stages[call->stage],
		    side_of(s, call->address, call->address + call->length), ns, pages);
	note(s, thread, call, ns, pages);
	calls.delete(&key);
	/* Last: a reader waits for this count and then reads the rest. */
	__sync_fetch_and_add(&s->left, 1);
}

/*
 * The probes of a call and its return. STAGE may depend on the arguments. EXTENT_ is the memory
 * range. AMOUNT is the number of pages if it is known at the call, or negative if the arguments
 * report a failure. Calls for which WHEN is false are skipped.
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

static __always_inline struct extent range_of(void *where)
{
	struct mmu_notifier_range range = {};

	bpf_probe_read_kernel(&range, sizeof(range), where);
	return extent(range.start, range.end - range.start);
}

/* Stages of all drivers. */
SPAN(lookup, (u8)PT_REGS_PARM5(ctx) ? STAGE_FAULTS : STAGE_SNAPSHOTS,
     extent(PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx)), 0, RETURNED)
SPAN_WHEN(inside(SLOT_lookup), 0, hmm, STAGE_HMM, NOWHERE, 0, STATUS)
SPAN(invalidate, STAGE_INVALIDATIONS, range_of((void *)PT_REGS_PARM2(ctx)), 0, EXTENT)
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
