// SPDX-License-Identifier: GPL-2.0
/* Own mode: the page-fault event queue belongs to the module. */
#include <linux/mlx5/device.h>
#include <linux/netlink.h>
#ifdef HAVE_LINUX_UNALIGNED_H
#include <linux/unaligned.h>
#else
#include <asm/unaligned.h>
#endif

#include "odp_test.h"

#define PAGE_FAULT_BIT	BIT_ULL(MLX5_EVENT_TYPE_PAGE_FAULT)
#define EQ_NUMBERS	256
#define NUMBER_MASK	GENMASK(23, 0)
#define DEMAND_MASK	GENMASK(31, 12)
#define EQE_TYPE	1
#define EQE_SUB_TYPE	3
#define EQE_DATA	32

/* Ref: struct mlx5_eqe_page_fault in linux/mlx5/device.h of Linux 6.12. */
static void odp_eq_decode_wqe(struct odp_event *event, const u8 *data)
{
	event->bytes_committed = get_unaligned_be32(data);
	event->wqe_index = get_unaligned_be16(data + 6);
	event->packet_length = get_unaligned_be16(data + 10);
	event->token = get_unaligned_be32(data + 12);
	event->type = data[24] & 7;
	event->queue = get_unaligned_be32(data + 24) & NUMBER_MASK;
}

static void odp_eq_decode_rdma(struct odp_event *event, const u8 *data)
{
	event->bytes_committed = get_unaligned_be32(data);
	event->rkey = get_unaligned_be32(data + 4);
	event->packet_length = get_unaligned_be16(data + 10);
	event->op_length = get_unaligned_be32(data + 12);
	event->va = get_unaligned_be64(data + 16);
	event->type = data[24] & 7;
	/* The resume has it in both places; in 2015 it was the QPN. */
	event->queue = get_unaligned_be32(data + 24) & NUMBER_MASK;
	if (!event->dev->flags_2015)
		event->token = event->queue;
}

static void odp_eq_decode_memory(struct odp_event *event, const u8 *data)
{
	event->flags = data[0];
	event->post = get_unaligned_be16(data + 2) << 12;
	event->pre = get_unaligned_be16(data + 4) << 12;
	event->token = (u64)get_unaligned_be16(data + 6) << 32 |
		       get_unaligned_be32(data + 8);
	event->demand = get_unaligned_be32(data + 12) & DEMAND_MASK;
	event->key = get_unaligned_be32(data + 16);
	event->va = get_unaligned_be64(data + 20);
}

static void odp_eq_record(struct odp_device *dev, const u8 *eqe)
{
	struct odp_event *event;

	if (eqe[EQE_TYPE] != MLX5_EVENT_TYPE_PAGE_FAULT)
		return;
	odp_count(dev, ODP_TEST_STAT_EVENTS);
	event = odp_event_alloc(dev);
	if (!event)
		return;
	event->source = ODP_TEST_SOURCE_OWN;
	event->sub_type = eqe[EQE_SUB_TYPE];
	memcpy(event->raw, eqe, ODP_EQE_BYTES);
	event->has_raw = true;
	switch (event->sub_type) {
	case ODP_SUB_WQE:
		odp_eq_decode_wqe(event, event->raw + EQE_DATA);
		break;
	case ODP_SUB_RDMA:
		odp_eq_decode_rdma(event, event->raw + EQE_DATA);
		break;
	case ODP_SUB_MEMORY:
		odp_eq_decode_memory(event, event->raw + EQE_DATA);
		break;
	}
	odp_event_queue(event);
}

/* Called for each interrupt of the vector, which is shared with commands. */
static int odp_eq_notifier(struct notifier_block *nb, unsigned long type,
			   void *data)
{
	struct odp_device *dev = container_of(nb, struct odp_device, nb);
	struct mlx5_eqe *eqe;
	unsigned long flags;
	u32 cc = 0;

	spin_lock_irqsave(&dev->eq_lock, flags);
	while ((eqe = mlx5_eq_get_eqe(dev->eq, cc))) {
		odp_eq_record(dev, (const u8 *)eqe);
		cc = mlx5_eq_update_cc(dev->eq, ++cc);
	}
	mlx5_eq_update_ci(dev->eq, cc, true);
	spin_unlock_irqrestore(&dev->eq_lock, flags);
	return NOTIFY_OK;
}

/*
 * Ask the device which event queue has the page-fault events: once mlx5_ib
 * has created one, it keeps it until it is unbound. Returns the number of the
 * queue, -ENOENT if there is none, or another errno.
 */
static int odp_eq_find_owner(struct odp_device *dev)
{
	int out_bytes = MLX5_ST_SZ_BYTES(query_eq_out);
	u8 in[MLX5_ST_SZ_BYTES(query_eq_in)] = {};
	int number, err, found = -ENOENT;
	void *out;

	out = kvzalloc(out_bytes, GFP_KERNEL);
	if (!out)
		return -ENOMEM;
	MLX5_SET(query_eq_in, in, opcode, MLX5_CMD_OP_QUERY_EQ);
	for (number = 0; number < EQ_NUMBERS && found == -ENOENT; number++) {
		MLX5_SET(query_eq_in, in, eq_number, number);
		err = mlx5_cmd_do(dev->mdev, in, sizeof(in), out, out_bytes);
		if (err && err != -EREMOTEIO)
			found = err;
		else if (!err && MLX5_GET64(query_eq_out, out, event_bitmask) &
				 PAGE_FAULT_BIT)
			found = number;
	}
	kvfree(out);
	return found;
}

/**
 * odp_eq_start() - Create the page-fault event queue: enter own mode
 * @dev: the device
 * @extack: says why it cannot be created
 *
 * Context: The caller holds &odp_device.alive for writing.
 * Return: 0; -EBUSY if another event queue has the page faults; or an errno.
 */
int odp_eq_start(struct odp_device *dev, struct netlink_ext_ack *extack)
{
	struct mlx5_eq_param param = {
		.nent = MLX5_NUM_ASYNC_EQE,
		.mask[0] = PAGE_FAULT_BIT,
	};
	int owner = odp_eq_find_owner(dev);
	struct mlx5_eq *eq;
	int err;

	if (owner >= 0) {
		NL_SET_ERR_MSG(extack,
			       "another event queue has the page faults: rebind mlx5_ib first");
		return -EBUSY;
	}
	if (owner != -ENOENT)
		return owner;
	eq = mlx5_eq_create_generic(dev->mdev, &param);
	if (IS_ERR(eq)) {
		NL_SET_ERR_MSG(extack,
			       "the device cannot create an event queue for page faults");
		return PTR_ERR(eq);
	}
	dev->eq = eq;
	dev->nb.notifier_call = odp_eq_notifier;
	err = mlx5_eq_enable(dev->mdev, eq, &dev->nb);
	if (err) {
		NL_SET_ERR_MSG(extack,
			       "the event queue's interrupt cannot be enabled");
		mlx5_eq_destroy_generic(dev->mdev, eq);
		dev->eq = NULL;
	}
	return err;
}

/**
 * odp_eq_stop() - Destroy the page-fault event queue: leave own mode
 * @dev: the device
 *
 * Context: The caller holds &odp_device.alive for writing.
 */
void odp_eq_stop(struct odp_device *dev)
{
	mlx5_eq_disable(dev->mdev, dev->eq, &dev->nb);
	if (mlx5_eq_destroy_generic(dev->mdev, dev->eq))
		dev_warn(dev->parent,
			 "mlx5_odp_test: cannot destroy the event queue\n");
	dev->eq = NULL;
}
