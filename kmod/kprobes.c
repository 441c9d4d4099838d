// SPDX-License-Identifier: GPL-2.0
/*
 * Observe mode: kprobes record the page faults and resumes of mlx5_ib; the
 * driver behaves as without them.
 *
 * struct mlx5_pagefault is private to mlx5_ib. Its layout is chosen by its
 * size, which user space reads from the BTF of mlx5_ib. An event from which no
 * mlx5 device can be found is ignored: there is no device to count it for.
 */
#include <linux/kprobes.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/netlink.h>
#include <linux/uaccess.h>
#include <rdma/ib_verbs.h>

#include "odp_test.h"

#define PROVIDER	"mlx5_ib"
#define MAX_PAGEFAULT_BYTES	96
/* Offset of dev in struct mlx5_ib_pf_eq, the same in all layouts. */
#define EQ_DEVICE	24

/* Offsets in struct mlx5_pagefault, drivers/infiniband/hw/mlx5/odp.c. */
struct odp_pf_layout {
	unsigned int size;
	unsigned int token_bytes;
	unsigned int token;
	unsigned int sub_type;
	unsigned int type;
	unsigned int detail;	/* the union of wqe, rdma and memory */
	unsigned int eq;
	unsigned int work;
};

static const struct odp_pf_layout layouts[] = {
	/* Linux 6.1 */
	{ 80, 4, 4, 8, 9, 16, 40, 48 },
	/* Linux 6.12 to 7.3: tokens of 48 bits, memory form */
	{ 96, 8, 8, 16, 17, 24, 56, 64 },
};

static const struct odp_pf_layout *layout;
static unsigned int observers;
static bool probes_registered;
/* Protects layout, observers, probes_registered and the probes. */
static DEFINE_MUTEX(observe_lock);

static u8 odp_pf_u8(const u8 *at)
{
	return *at;
}

static u32 odp_pf_u32(const u8 *at)
{
	u32 value;

	memcpy(&value, at, sizeof(value));
	return value;
}

static u64 odp_pf_u64(const u8 *at)
{
	u64 value;

	memcpy(&value, at, sizeof(value));
	return value;
}

/* The device below an RDMA device, or NULL if that is not one of mlx5. */
static struct odp_device *odp_probe_device(const struct ib_device *ibdev)
{
	enum rdma_driver_id id;
	struct device *parent;

	if (copy_from_kernel_nofault(&id, &ibdev->ops.driver_id, sizeof(id)) ||
	    id != RDMA_DRIVER_MLX5 ||
	    copy_from_kernel_nofault(&parent, &ibdev->dev.parent,
				     sizeof(parent)))
		return NULL;
	return odp_device_get_by_parent(parent);
}

static void odp_probe_decode(struct odp_event *event, const u8 *fault)
{
	const u8 *detail = fault + layout->detail;

	event->bytes_committed = odp_pf_u32(fault);
	event->token = layout->token_bytes == 8 ?
		       odp_pf_u64(fault + layout->token) :
		       odp_pf_u32(fault + layout->token);
	event->sub_type = odp_pf_u8(fault + layout->sub_type);
	event->type = odp_pf_u8(fault + layout->type);
	switch (event->sub_type) {
	case ODP_SUB_WQE:
		event->packet_length = odp_pf_u32(detail);
		event->queue = odp_pf_u32(detail + 4);
		event->wqe_index = odp_pf_u32(detail + 8) & 0xffff;
		break;
	case ODP_SUB_RDMA:
		event->rkey = odp_pf_u32(detail);
		event->packet_length = odp_pf_u32(detail + 4);
		event->op_length = odp_pf_u32(detail + 8);
		event->va = odp_pf_u64(detail + 16);
		event->queue = event->token;
		break;
	case ODP_SUB_MEMORY:
		event->va = odp_pf_u64(detail);
		event->key = odp_pf_u32(detail + 8);
		event->demand = odp_pf_u32(detail + 12);
		event->pre = odp_pf_u32(detail + 16);
		event->post = odp_pf_u32(detail + 20);
		event->flags = odp_pf_u8(detail + 24);
		break;
	}
}

static void odp_probe_record(struct odp_device *dev, const void *fault,
			     u8 source, s32 error)
{
	u8 copy[MAX_PAGEFAULT_BYTES];
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
	odp_probe_decode(event, copy);
	odp_event_queue(event);
}

/* Record a hit if the device is observed, and the time that took. */
static void odp_probe_hit(struct odp_device *dev, const void *fault, u8 source,
			  s32 error)
{
	u64 began_ns = ktime_get_ns();

	if (READ_ONCE(dev->mode) != ODP_TEST_MODE_OBSERVE)
		return;
	odp_probe_record(dev, fault, source, error);
	atomic64_add(ktime_get_ns() - began_ns,
		     &dev->stats[ODP_TEST_STAT_PROBE_NS]);
}

/* void mlx5_ib_eqe_pf_action(struct work_struct *work) */
static int __kprobes odp_probe_fault(struct kprobe *probe, struct pt_regs *regs)
{
	const void *fault = (void *)regs_get_kernel_argument(regs, 0) -
			    layout->work;
	struct odp_device *dev;
	void *eq, *ibdev;

	if (copy_from_kernel_nofault(&eq, fault + layout->eq, sizeof(eq)) ||
	    copy_from_kernel_nofault(&ibdev, eq + EQ_DEVICE, sizeof(ibdev)))
		return 0;
	dev = odp_probe_device(ibdev);
	if (dev) {
		odp_probe_hit(dev, fault, ODP_TEST_SOURCE_OBSERVED, 0);
		odp_device_put(dev);
	}
	return 0;
}

/*
 * void mlx5_ib_page_fault_resume(struct mlx5_ib_dev *dev,
 *				  struct mlx5_pagefault *pfault, int error)
 *
 * struct mlx5_ib_dev begins with its struct ib_device.
 */
static int __kprobes odp_probe_resume(struct kprobe *probe,
				      struct pt_regs *regs)
{
	void *ibdev = (void *)regs_get_kernel_argument(regs, 0);
	struct odp_device *dev = odp_probe_device(ibdev);

	if (dev) {
		odp_probe_hit(dev, (void *)regs_get_kernel_argument(regs, 1),
			      ODP_TEST_SOURCE_RESUME,
			      regs_get_kernel_argument(regs, 2));
		odp_device_put(dev);
	}
	return 0;
}

static struct kprobe odp_fault_probe, odp_resume_probe;

static int odp_probe_register(struct kprobe *probe, const char *symbol,
			      kprobe_pre_handler_t handler)
{
	/* A probe which was registered before keeps the kernel's state. */
	memset(probe, 0, sizeof(*probe));
	probe->symbol_name = symbol;
	probe->pre_handler = handler;
	return register_kprobe(probe);
}

static int odp_probes_register(void)
{
	int err = odp_probe_register(&odp_fault_probe,
				     PROVIDER ":mlx5_ib_eqe_pf_action",
				     odp_probe_fault);

	if (err)
		return err;
	err = odp_probe_register(&odp_resume_probe,
				 PROVIDER ":mlx5_ib_page_fault_resume",
				 odp_probe_resume);
	if (err)
		unregister_kprobe(&odp_fault_probe);
	return err;
}

/* Check with a disabled probe that mlx5_ib has a page-fault handler. */
static int odp_probes_check_handler(struct netlink_ext_ack *extack)
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
		NL_SET_ERR_MSG(extack,
			"mlx5_ib has no page-fault handler to observe: not loaded, or without ODP");
	return err == -ENOENT ? -EOPNOTSUPP : err;
}

static void odp_probes_unregister(void)
{
	if (!probes_registered)
		return;
	unregister_kprobe(&odp_fault_probe);
	unregister_kprobe(&odp_resume_probe);
	probes_registered = false;
}

/* mlx5_ib is loaded again while it is observed: probe its new functions. */
static int odp_module_notifier(struct notifier_block *nb, unsigned long state,
			       void *data)
{
	const struct module *module = data;

	if (state != MODULE_STATE_COMING || strcmp(module->name, PROVIDER))
		return NOTIFY_DONE;
	mutex_lock(&observe_lock);
	if (observers) {
		odp_probes_unregister();
		probes_registered = !odp_probes_register();
	}
	mutex_unlock(&observe_lock);
	return NOTIFY_DONE;
}

/* After kprobes' own notifier (0), which drops probes of a removed module. */
static struct notifier_block odp_module_nb = {
	.notifier_call = odp_module_notifier,
	.priority = -1,
};

static int __odp_probes_start(u32 pagefault_size,
			      struct netlink_ext_ack *extack)
{
	unsigned int row;
	int err;

	err = probes_registered ? 0 : odp_probes_check_handler(extack);
	if (err)
		return err;
	for (row = 0; row < ARRAY_SIZE(layouts); row++)
		if (layouts[row].size == pagefault_size)
			break;
	if (row == ARRAY_SIZE(layouts)) {
		NL_SET_ERR_MSG(extack,
			       "no layout for a struct mlx5_pagefault of that size");
		return -EOPNOTSUPP;
	}
	if (observers && layout != &layouts[row]) {
		NL_SET_ERR_MSG(extack,
			       "observed already, with another size");
		return -EBUSY;
	}
	if (!probes_registered) {
		layout = &layouts[row];
		err = odp_probes_register();
		if (err) {
			NL_SET_ERR_MSG(extack,
				       "mlx5_ib's page-fault handler cannot be probed");
			return err;
		}
		probes_registered = true;
	}
	observers++;
	return 0;
}

/**
 * odp_probes_start() - Observe mlx5_ib for one more device: enter observe mode
 * @pagefault_size: bytes of struct mlx5_pagefault
 * @extack: says why mlx5_ib cannot be observed
 *
 * Return: 0; -EOPNOTSUPP without a handler or a layout of that size; -EBUSY if
 * another size is in use; or an errno.
 */
int odp_probes_start(u32 pagefault_size, struct netlink_ext_ack *extack)
{
	int err;

	mutex_lock(&observe_lock);
	err = __odp_probes_start(pagefault_size, extack);
	mutex_unlock(&observe_lock);
	return err;
}

/**
 * odp_probes_stop() - Observe mlx5_ib for one device less: leave observe mode
 */
void odp_probes_stop(void)
{
	mutex_lock(&observe_lock);
	if (!--observers)
		odp_probes_unregister();
	mutex_unlock(&observe_lock);
}

/**
 * odp_probes_init() - Follow the loading of mlx5_ib
 *
 * Return: 0 or an errno.
 */
int odp_probes_init(void)
{
	return register_module_notifier(&odp_module_nb);
}

/**
 * odp_probes_exit() - Stop following the loading of mlx5_ib
 */
void odp_probes_exit(void)
{
	unregister_module_notifier(&odp_module_nb);
}
