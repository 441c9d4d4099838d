"""The table of symptoms: reports that a kernel prints when something is wrong, and how to parse them.

A new symptom is a new row here and a recorded log in tests/data/console.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.errors import Crash, GuestError, Hang, KasanReport, LeakReport, LockdepReport, Warn

_TRACE_END = r"---\[ end trace"
_TASK_END = r"^ ?</TASK>"
_RULE = r"^={20,}$"
MORE_LINES = 3


@dataclass(frozen=True)
class Kind:
    """One row.

    `headline` matches the line that names the report (timestamp and caller removed), `ends` its last line;
    without `ends` it is that one line. `what` finds, anywhere in the report, the text that belongs into the
    fingerprint besides the frames: its first group, numbers removed. Frames are looked for after the first
    line that matches `frames_after`; outside of interrupts with `task_only`; not at all without `frames`.
    While a report is open, headlines of the kinds in `absorbs` belong to it; it continues past its last line
    when one of the MORE_LINES after that matches `more`.
    """

    name: str
    error: type[GuestError]
    headline: str
    ends: str = ""
    what: str = ""
    frames: bool = True
    frames_after: str = ""
    task_only: bool = False
    absorbs: tuple[str, ...] = ()
    more: str = ""


# The first row that matches a line names it, so special rows stand above general ones.
# Ref: Linux 7.3 kernel/{panic,watchdog,hung_task}.c, kernel/rcu/tree_stall.h,
# kernel/locking/lockdep.c, lib/{bug,list_debug,ubsan,refcount}.c, mm/{slub,oom_kill,kmemleak}.c,
# mm/{kasan,kfence}/report.c, net/core/dev.c, arch/x86/kernel/dumpstack.c, arch/arm64/kernel/traps.c
KINDS: tuple[Kind, ...] = (
    Kind(
        "kasan",
        KasanReport,
        r"^BUG: KASAN: ",
        ends=_RULE,
        what=r"KASAN: ([\w -]+?) in ",
    ),
    Kind(
        "kfence",
        KasanReport,
        r"^BUG: KFENCE: ",
        ends=_RULE,
        what=r"KFENCE: ([\w -]+?) in ",
    ),
    Kind(
        "soft_lockup",
        Hang,
        r"^(NMI )?watchdog: BUG: soft lockup - CPU#\d+ stuck",
        ends=_TASK_END,
        task_only=True,
    ),
    Kind(
        "hard_lockup",
        Hang,
        r"^(NMI )?watchdog: (CPU\d+: )?Watchdog detected hard LOCKUP on cpu",
        ends=_TASK_END,
        task_only=True,
    ),
    Kind(
        "rcu_stall",
        Hang,
        r"^rcu: INFO: \w+ (self-)?detected (expedited )?stalls? on CPU",
        ends=_TASK_END,
        task_only=True,
        absorbs=("rcu_stall",),
        more=r"^rcu: |^Sending NMI|^NMI backtrace|^CPU: \d+ |^task:|^INFO: NMI handler",
    ),
    Kind(
        "hung_task",
        Hang,
        r"^INFO: task .+:\d+ (blocked|is blocked)( in I/O wait)? (for more than \d+ seconds|on an? )",
        ends=_TASK_END,
    ),
    Kind(
        "workqueue_lockup",
        Hang,
        r"BUG: workqueue lockup - pool",
        frames=False,
    ),
    Kind(
        "lockdep",
        LockdepReport,
        r"^(WARNING: (possible (circular locking|recursive locking|irq lock inversion)|suspicious RCU usage|"
        r"inconsistent lock state|bad unlock balance|held lock freed|lock held when returning to user space|"
        r"Nested lock was not taken|\S+-safe -> \S+-unsafe lock order)|\[ BUG: Invalid wait context \]|"
        r"INFO: trying to register non-static key|DEBUG_LOCKS_WARN_ON)",
        ends=_TASK_END,
        what=r"^(?:WARNING: |INFO: |\[ BUG: |BUG: )?(\w[\w >-]+?)(?: detected)?!?\.?(?: \])?$",
        frames_after=r"^stack backtrace:|^Call Trace:",
        absorbs=("warn",),
    ),
    Kind(
        "slub",
        Crash,
        r"^BUG [\w:.-]+ \((Not tainted|Tainted)[^)]*\): ",
        ends=r"^FIX \S+: ",
        what=r"^BUG \S+ \([^)]*\): (.+)",
        frames_after=r"^Call Trace:",
        absorbs=("warn",),
    ),
    Kind(
        "list_corruption",
        Crash,
        r"^list_(add|del)( double add| corruption)",
        ends=_TRACE_END,
        what=r"^(list_\w+ (?:corruption|double add)\.? ?[a-z>-]*)",
        absorbs=("bug", "oops", "warn"),
    ),
    Kind(
        "refcount",
        Warn,
        r"^refcount_t: ",
        ends=_TRACE_END,
        what=r"^refcount_t: ([\w ;-]+)",
        absorbs=("warn",),
    ),
    Kind(
        "ubsan",
        Warn,
        r"^UBSAN: ",
        ends=rf"---\[ end trace|{_RULE}",
        what=r"^UBSAN: ([\w-]+)",
    ),
    Kind(
        "panic",
        Crash,
        r"^Kernel panic - not syncing: ",
        ends=r"---\[ end Kernel panic|^Rebooting in \d+ seconds",
        what=r"not syncing: ([^:!.]+)",
    ),
    Kind(
        "oops",
        Crash,
        r"^(BUG: (kernel NULL pointer dereference|unable to handle|\w+ stack guard page was hit)|"
        r"general protection fault|(Oops|Internal error)(: |$)|Unable to handle kernel |double fault: |"
        r"kernel stack overflow|(divide error|invalid opcode|stack segment): [\da-f]{4} \[#)",
        ends=_TRACE_END,
        what=r"(NULL pointer dereference|page fault|general protection fault|stack guard page|double fault|"
        r"divide error|paging request)",
        absorbs=("oops", "kasan"),
    ),
    Kind(
        "bug",
        Crash,
        r"^kernel BUG at ",
        ends=_TRACE_END,
        absorbs=("oops",),
    ),
    Kind(
        "bug",
        Crash,
        r"^(\w+: )?BUG: ",
        ends=_TASK_END,
        what=r"BUG: ([A-Za-z][A-Za-z ,_-]+)",
    ),
    Kind(
        "warn",
        Warn,
        r"^WARNING: (CPU: \d+ PID: \d+ at |\S+:\d+ at )",
        ends=_TRACE_END,
    ),
    Kind(
        "oom",
        Warn,
        r"invoked oom-killer: ",
        ends=r"[Oo]ut of memory.*: Killed process|^Kernel panic",
        what=r"(?:Killed process \d+ )(\([^)]+\))",
        frames=False,
    ),
    Kind(
        "page_allocation",
        Warn,
        r"^\S.*: page allocation failure: order:\d+",
        ends=_TASK_END,
        what=r"failure: (order:\d+)",
        task_only=True,
    ),
    Kind(
        "leak",
        LeakReport,
        r"^kmemleak: \d+ new suspected memory leaks",
        what=r"kmemleak: \d+ (new suspected memory leaks)",
        frames=False,
    ),
    Kind(
        "leak",
        LeakReport,
        r"^unreferenced object 0x[\da-f]+ \(size \d+\):",
        ends=r"^(unreferenced object )?$",
    ),
    Kind(
        "leak",
        LeakReport,
        r"^unregister_netdevice: waiting for \S+ to become free",
        what=r"(unregister_netdevice: waiting)",
        frames=False,
    ),
)

# Frames of probes, with their trampolines and programs: they stand between a function and its caller. A trampoline
# begins where no call ends, so the kernel names the function before it: trace_clock_x86_tsc, or
# osnoise_arch_unregister where that tracer is configured.
# Ref: Linux 7.3 arch/x86/kernel/Makefile (trace_clock.o, trace.o, rethook.o in this order), arch/x86/kernel/rethook.c,
# arch/x86/kernel/{ftrace_64.S,kprobes/}, arch/arm64/kernel/probes, kernel/{kprobes.c,trace/,bpf/trampoline.c}
PROBES = (
    r"trace_clock_x86_tsc|osnoise_arch_unregister",
    r"arch_rethook_\w+|rethook_\w+|(__)?kretprobe_\w+|return_to_handler",
    r"__fentry__|ftrace_(regs_)?call(er\w*)?|ftrace_stub\w*|ftrace_trampoline|(arch_)?ftrace_ops_\w+_func",
    r"ftrace_graph_\w+|function_graph_\w+|(prepare_)?ftrace_return(_to_handler)?|fprobe_\w+",
    r"kprobe_(ftrace_handler|int3_handler|dispatcher|perf_func|trace_func|emulate_\w+|(opt)?insn_\w+)",
    r"(aggr|opt)_pre_handler|optimized_callback|optprobe_template_\w+|setup_detour_execution",
    r"trace_call_bpf|bpf_prog_[\da-f]{16}(_\w+)?|bpf_trampoline_\d\w*|__bpf_(prog|tramp)_(enter|exit)\w*",
    r"bpf_trace_run\d+|__bpf_trace_\w+|__traceiter_\w+",
)

# Frames that do not tell bugs apart: how the report is printed, how the kernel was entered, who waits for a CPU that
# does not answer.
PLUMBING = re.compile(
    r"(__)?(dump_stack(_lvl|_print_info)?|show_(stack|regs)|dump_header|v?panic|nmi_panic|die(_addr)?|"
    r"warn(_printf|_slowpath_\w+|_alloc)?|report_(bug|addr_fault)\w*|handle_bug|page_fault_oops|"
    r"(asm_)?(exc|sysvec)_\w+|asm_\w+|error_entry|irqentry_\w+|do_(user_addr_fault|kern_addr_fault|error_trap)|"
    r"(__)?ubsan_\w+|refcount_warn_saturate|list_\w+_(valid|corruption)(_or_report)?|"
    r"print_(report|address_description|\w*bug\w*|trailer|usage_bug)|k[ac]san_\w+|asan_\w+|kfence_\w+|"
    r"check_(memory_region|noncircular|prev\w*|bytes_and_report|object|slab)|validate_chain|lock_acquire|mark_lock|"
    r"lockdep_\w+|object_err|slab_(err|bug|pad_check)|free_to_partial_list|free_debug_processing|"
    r"alloc_debug_processing|schedule(_bug|_timeout\w*)?|io_schedule\w*|preempt_schedule\w*|oom_kill_process|"
    r"rcu_gp_(fqs_loop|kthread)|rcu_momentary_eqs|stop_machine_yield|multi_cpu_stop|cpu_stopper_thread|"
    r"smpboot_thread_fn|out_of_memory|x64_sys_call|do_syscall_\w+|entry_\w+|ret_from_fork(_asm)?|kthread|"
    r"(el\d\w*|invoke_syscall|do_el0_svc)|secondary_startup_\w+)|" + "|".join(PROBES)
)
