// SPDX-License-Identifier: GPL-2.0
/* ODP capability pages: as the device reports them, and mlx5_core's copy. */
#include <linux/build_bug.h>
#include <linux/mlx5/device.h>

#include "odp_test.h"

/*
 * Two schemes of 64 bytes: transport, which is all that 2015 had, and memory.
 * A scheme has one word per transport from byte 16; its operations start at
 * the top bit.
 */
#define SCHEME_BYTES		64
#define FIRST_TRANSPORT		16
#define MEM_PAGE_FAULT_BYTE	(0x600 / 8)

/**
 * odp_query_caps() - Query the ODP capability page of a device
 * @dev: the device
 * @max: the maximum page, not the current one
 * @page: ODP_CAPS_BYTES bytes, written on success
 *
 * Context: The caller holds &odp_device.alive and has checked
 * &odp_device.gone.
 * Return: 0 or an errno.
 */
int odp_query_caps(struct odp_device *dev, bool max, void *page)
{
	int out_bytes = MLX5_ST_SZ_BYTES(query_hca_cap_out);
	u8 in[MLX5_ST_SZ_BYTES(query_hca_cap_in)] = {};
	void *out;
	int err;

	out = kvzalloc(out_bytes, GFP_KERNEL);
	if (!out)
		return -ENOMEM;
	MLX5_SET(query_hca_cap_in, in, opcode, MLX5_CMD_OP_QUERY_HCA_CAP);
	/* 4 and 5: HCA_CAP_OPMOD_GET_ODP_MAX and _CUR of 2015 */
	MLX5_SET(query_hca_cap_in, in, op_mod,
		 MLX5_CAP_ODP << 1 | (max ? 0 : 1));
	err = mlx5_cmd_exec(dev->mdev, in, sizeof(in), out, out_bytes);
	if (!err)
		memcpy(page, MLX5_ADDR_OF(query_hca_cap_out, out, capability),
		       ODP_CAPS_BYTES);
	kvfree(out);
	return err;
}

/**
 * odp_driver_caps() - Read mlx5_core's copy of the ODP capability page
 * @dev: the device
 * @max: the maximum page, not the current one
 * @page: ODP_CAPS_BYTES bytes
 *
 * Context: As odp_query_caps().
 */
void odp_driver_caps(struct odp_device *dev, bool max, void *page)
{
	struct mlx5_hca_cap *caps = dev->mdev->caps.hca[MLX5_CAP_ODP];

	BUILD_BUG_ON(sizeof(caps->cur) < ODP_CAPS_BYTES);
	memcpy(page, max ? caps->max : caps->cur, ODP_CAPS_BYTES);
}

/**
 * odp_transport_caps() - Read the operations of one transport
 * @page: an ODP capability page
 * @scheme: 0 transport, 1 memory
 * @transport: 0 RC, 1 UC, 2 UD, 3 XRC, 4 DC
 *
 * Return: ODP_TEST_CAP_*.
 */
u32 odp_transport_caps(const void *page, unsigned int scheme,
		       unsigned int transport)
{
	const u8 *word = page + scheme * SCHEME_BYTES + FIRST_TRANSPORT +
			 transport * sizeof(u32);
	unsigned int bit;
	u32 found = 0;

	for (bit = 0; bit < 6; bit++)
		if (*word & (0x80 >> bit))
			found |= 1u << bit;
	return found;
}

/**
 * odp_memory_scheme() - Test if the memory scheme is on
 * @page: an ODP capability page
 *
 * Return: mem_page_fault of the page.
 */
bool odp_memory_scheme(const void *page)
{
	return ((const u8 *)page)[MEM_PAGE_FAULT_BYTE] & 0x80;
}
