// SPDX-License-Identifier: GPL-2.0
/*
 * Observe mode: mlx5_ib's own page faults and resumes are seen, by probes on
 * its functions, and nothing is changed.
 *
 * Its structure is private. Its size, which user space reads from the
 * module's BTF, chooses the layout. An event that does not lead to a device
 * of mlx5 by it is nobody's and passed over: there is no device to count it at.
 */
#include <linux/kprobes.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/netlink.h>
#include <linux/uaccess.h>
#include <rdma/ib_verbs.h>

#include "odp_test.h"

#define PROVIDER	"mlx5_ib"
#define PAGEFAULT_MOST	96
/* Of struct mlx5_ib_pf_eq: its device. Same in all rows. */
#define EQ_DEVICE	24

/* Offsets in struct mlx5_pagefault, drivers/infiniband/hw/mlx5/odp.c. */
struct layout {
	unsigned int size;
	unsigned int token_bytes;
	unsigned int token;
	unsigned int sub_type;
	unsigned int type;
	unsigned int detail;	/* of the union */
	unsigned int eq;
	unsigned int work;
};

static const struct layout layouts[] = {
	/* Linux 6.1 */
	{ 80, 4, 4, 8, 9, 16, 40, 48 },
	/* Linux 6.12 to 7.3: tokens of 48 bits, the memory form */
	{ 96, 8, 8, 16, 17, 24, 56, 64 },
};

static const struct layout *layout;
static unsigned int observers;
static DEFINE_MUTEX(observe_lock);

static u8 get8(const u8 *at)
{
	return *at;
}

static u32 get32(const u8 *at)
{
	u32 value;

	memcpy(&value, at, sizeof(value));
	return value;
}

static u64 get64(const u8 *at)
{
	u64 value;

	memcpy(&value, at, sizeof(value));
	return value;
}

/* The card below what must be an RDMA device of mlx5, or NULL. */
static struct odp_device *card_of(const struct ib_device *ibdev)
{
	enum rdma_driver_id id;
	struct device *parent;

	if (copy_from_kernel_nofault(&id, &ibdev->ops.driver_id, sizeof(id)) ||
	    id != RDMA_DRIVER_MLX5 ||
	    copy_from_kernel_nofault(&parent, &ibdev->dev.parent, sizeof(parent)))
		return NULL;
	return odp_device_of(parent);
}

static void decode(struct odp_event *event, const u8 *fault)
{
	const u8 *detail = fault + layout->detail;

	event->bytes_committed = get32(fault);
	event->token = layout->token_bytes == 8 ? get64(fault + layout->token) :
						  get32(fault + layout->token);
	event->sub_type = get8(fault + layout->sub_type);
	event->type = get8(fault + layout->type);
	switch (event->sub_type) {
	case ODP_SUB_WQE:
		event->packet_length = get32(detail);
		event->queue = get32(detail + 4);
		event->wqe_index = get32(detail + 8) & 0xffff;
		break;
	case ODP_SUB_RDMA:
		event->rkey = get32(detail);
		event->packet_length = get32(detail + 4);
		event->op_length = get32(detail + 8);
		event->va = get64(detail + 16);
		event->queue = event->token;
		break;
	case ODP_SUB_MEMORY:
		event->va = get64(detail);
		event->key = get32(detail + 8);
		event->demand = get32(detail + 12);
		event->pre = get32(detail + 16);
		event->post = get32(detail + 20);
		event->flags = get8(detail + 24);
		break;
	}
}

static void note(struct odp_device *dev, const void *fault, u8 source, s32 error)
{
	u8 copy[PAGEFAULT_MOST];
	struct odp_event *event;

	if (copy_from_kernel_nofault(copy, fault, layout->size) ||
	    copy[layout->sub_type] > ODP_SUB_MEMORY) {
		odp_count(dev, ODP_TEST_STAT_UNDECODED);
		return;
	}
	odp_count(dev, source == ODP_TEST_SOURCE_OBSERVED ?
		       ODP_TEST_STAT_OBSERVED : ODP_TEST_STAT_OBSERVED_RESUMES);
	event = odp_event_alloc(dev);
	if (!event)
		return;
	event->source = source;
	event->error = error;
	decode(event, copy);
	odp_event_queue(event);
}

static void seen(struct odp_device *dev, const void *fault, u8 source, s32 error)
{
	u64 began_ns = ktime_get_ns();

	if (READ_ONCE(dev->mode) != ODP_TEST_MODE_OBSERVE)
		return;
	note(dev, fault, source, error);
	atomic64_add(ktime_get_ns() - began_ns, &dev->stats[ODP_TEST_STAT_PROBE_NS]);
}

/* void mlx5_ib_eqe_pf_action(struct work_struct *work) */
static int __kprobes on_fault(struct kprobe *probe, struct pt_regs *regs)
{
	const void *fault = (void *)regs_get_kernel_argument(regs, 0) - layout->work;
	struct odp_device *dev;
	void *eq, *ibdev;

	if (copy_from_kernel_nofault(&eq, fault + layout->eq, sizeof(eq)) ||
	    copy_from_kernel_nofault(&ibdev, eq + EQ_DEVICE, sizeof(ibdev)))
		return 0;
	dev = card_of(ibdev);
	if (dev) {
		seen(dev, fault, ODP_TEST_SOURCE_OBSERVED, 0);
		odp_device_put(dev);
	}
	return 0;
}

/* void mlx5_ib_page_fault_resume(struct mlx5_ib_dev *, struct mlx5_pagefault *, int error) */
static int __kprobes on_resume(struct kprobe *probe, struct pt_regs *regs)
{
	struct odp_device *dev = card_of((void *)regs_get_kernel_argument(regs, 0));

	if (dev) {
		seen(dev, (void *)regs_get_kernel_argument(regs, 1),
		     ODP_TEST_SOURCE_RESUME, regs_get_kernel_argument(regs, 2));
		odp_device_put(dev);
	}
	return 0;
}

static struct kprobe fault_probe, resume_probe;

static int place(struct kprobe *probe, const char *symbol, kprobe_pre_handler_t handler)
{
	/* A probe that was taken away keeps what the kernel wrote in it. */
	memset(probe, 0, sizeof(*probe));
	probe->symbol_name = symbol;
	probe->pre_handler = handler;
	return register_kprobe(probe);
}

static int place_both(void)
{
	int err = place(&fault_probe, PROVIDER ":mlx5_ib_eqe_pf_action", on_fault);

	if (err)
		return err;
	err = place(&resume_probe, PROVIDER ":mlx5_ib_page_fault_resume", on_resume);
	if (err)
		unregister_kprobe(&fault_probe);
	return err;
}

/* Whether there is something to observe: a probe that is never armed finds out. */
static int find_handler(struct netlink_ext_ack *extack)
{
	static struct kprobe probe;
	int err;

	memset(&probe, 0, sizeof(probe));
	probe.symbol_name = PROVIDER ":mlx5_ib_eqe_pf_action";
	probe.flags = KPROBE_FLAG_DISABLED;
	err = register_kprobe(&probe);
	if (!err)
		unregister_kprobe(&probe);
	else
		NL_SET_ERR_MSG(extack, "mlx5_ib has no page-fault handler to observe: not loaded, or built without on-demand paging");
	return err == -ENOENT ? -EOPNOTSUPP : err;
}

static bool placed;

static void remove_both(void)
{
	if (!placed)
		return;
	unregister_kprobe(&fault_probe);
	unregister_kprobe(&resume_probe);
	placed = false;
}

/* mlx5_ib comes again while it is observed: its functions are new ones. */
static int module_notified(struct notifier_block *nb, unsigned long state, void *data)
{
	const struct module *module = data;

	if (state != MODULE_STATE_COMING || strcmp(module->name, PROVIDER))
		return NOTIFY_DONE;
	mutex_lock(&observe_lock);
	if (observers) {
		remove_both();
		placed = !place_both();
	}
	mutex_unlock(&observe_lock);
	return NOTIFY_DONE;
}

/* After kprobes' own notifier (0), which drops probes of a module that went. */
static struct notifier_block module_nb = {
	.notifier_call = module_notified,
	.priority = -1,
};

static int start(u32 pagefault_size, struct netlink_ext_ack *extack)
{
	unsigned int row;
	int err;

	err = placed ? 0 : find_handler(extack);
	if (err)
		return err;
	for (row = 0; row < ARRAY_SIZE(layouts); row++)
		if (layouts[row].size == pagefault_size)
			break;
	if (row == ARRAY_SIZE(layouts)) {
		NL_SET_ERR_MSG(extack, "no layout for a struct mlx5_pagefault of that size");
		return -EOPNOTSUPP;
	}
	if (observers && layout != &layouts[row]) {
		NL_SET_ERR_MSG(extack, "observed already, with another size");
		return -EBUSY;
	}
	if (!placed) {
		layout = &layouts[row];
		err = place_both();
		if (err) {
			NL_SET_ERR_MSG(extack, "mlx5_ib's page-fault handler cannot be probed");
			return err;
		}
		placed = true;
	}
	observers++;
	return 0;
}

int odp_observe_start(u32 pagefault_size, struct netlink_ext_ack *extack)
{
	int err;

	mutex_lock(&observe_lock);
	err = start(pagefault_size, extack);
	mutex_unlock(&observe_lock);
	return err;
}

void odp_observe_stop(void)
{
	mutex_lock(&observe_lock);
	if (!--observers)
		remove_both();
	mutex_unlock(&observe_lock);
}

int odp_observe_init(void)
{
	return register_module_notifier(&module_nb);
}

void odp_observe_exit(void)
{
	unregister_module_notifier(&module_nb);
}
