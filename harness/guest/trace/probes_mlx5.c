/* SPDX-License-Identifier: GPL-2.0-only */
/* Stages of mlx5_ib. Ref: Linux 7.3 drivers/infiniband/hw/mlx5/odp.c, umr.c */

/* Ref: Linux 7.3 drivers/infiniband/hw/mlx5/mlx5_ib.h, MLX5_IB_UPD_XLT_ZAP */
#define ZAP 1

SPAN(translate, PT_REGS_PARM5(ctx) & ZAP ? STAGE_ZAPS : STAGE_TRANSLATIONS, NOWHERE,
     (s32)PT_REGS_PARM3(ctx), STATUS)
SPAN_OF_WORK(work, STAGE_WORKS, NOWHERE, 0, GIVEN)
SPAN(resume, STAGE_RESUMES, NOWHERE, (s32)PT_REGS_PARM3(ctx) ? -1 : 0, GIVEN)
SPAN(key, STAGE_KEYS, NOWHERE, 0, GIVEN)
SPAN(umr, STAGE_UMRS, NOWHERE, 0, STATUS)

/* Trampolines; the extra level expands the names which stages.py defines. */
#define ENTRY(module, symbol, arguments...) MODULE_KFUNC_PROBE(module, symbol, arguments)
#define EXIT(module, symbol, arguments...) MODULE_KRETFUNC_PROBE(module, symbol, arguments)

ENTRY(INTERRUPT_MODULE, INTERRUPT_SYMBOL, void *block)
{
	u32 zero = 0;
	u64 *since = interrupts.lookup(&zero);

	if (since)
		*since = bpf_ktime_get_ns();
	return 0;
}

EXIT(INTERRUPT_MODULE, INTERRUPT_SYMBOL, void *block)
{
	u32 zero = 0;
	u64 *since = interrupts.lookup(&zero);

	if (since)
		*since = 0;
	return 0;
}

/*
 * The second byte of struct mlx5_eqe is the type.
 * Ref: Linux 7.3 include/linux/mlx5/device.h, struct mlx5_eqe, enum mlx5_event
 */
#define PAGE_FAULT 0xc

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
