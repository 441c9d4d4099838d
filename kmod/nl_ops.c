// SPDX-License-Identifier: GPL-2.0
/* The operations of the generic netlink family and their attributes. */
#include <net/genetlink.h>

#include "nl.h"

#define MAX_DELAY_US	60000000

/* Not const: nla_policy of Linux 6.1 has no pointer to const. */
static struct netlink_range_validation odp_token_range = {
	.max = BIT_ULL(48) - 1,
};
static struct netlink_range_validation odp_queue_range = {
	.max = BIT(24) - 1,
};
static struct netlink_range_validation odp_delay_range = {
	.max = MAX_DELAY_US,
};
static struct netlink_range_validation odp_size_range = {
	.min = 1,
	.max = PAGE_SIZE,
};

#define DEVICE_POLICY {						\
	.type = NLA_NUL_STRING,					\
	.len = sizeof_field(struct odp_device, name) - 1,	\
}

static const struct nla_policy odp_device_attrs[] = {
	[ODP_TEST_A_DEVICE] = DEVICE_POLICY,
};

static const struct nla_policy odp_mode_attrs[] = {
	[ODP_TEST_A_DEVICE] = DEVICE_POLICY,
	[ODP_TEST_A_MODE] = NLA_POLICY_MAX(NLA_U8, ODP_TEST_MODE_MAX),
	[ODP_TEST_A_PAGEFAULT_SIZE] =
		NLA_POLICY_FULL_RANGE(NLA_U32, &odp_size_range),
};

static const struct nla_policy odp_policy_attrs[] = {
	[ODP_TEST_A_DEVICE] = DEVICE_POLICY,
	[ODP_TEST_A_SELECTOR] = NLA_POLICY_MAX(NLA_U8, ODP_TEST_SELECT_MAX),
	[ODP_TEST_A_VALUE] = NLA_POLICY_FULL_RANGE(NLA_U64, &odp_token_range),
	[ODP_TEST_A_ACTION] = NLA_POLICY_RANGE(NLA_U8, ODP_TEST_ACTION_FORWARD,
					       ODP_TEST_ACTION_MAX),
	[ODP_TEST_A_DELAY_US] =
		NLA_POLICY_FULL_RANGE(NLA_U32, &odp_delay_range),
};

static const struct nla_policy odp_resume_attrs[] = {
	[ODP_TEST_A_DEVICE] = DEVICE_POLICY,
	[ODP_TEST_A_FORM] = NLA_POLICY_MAX(NLA_U8, ODP_TEST_FORM_MAX),
	[ODP_TEST_A_TOKEN] = NLA_POLICY_FULL_RANGE(NLA_U64, &odp_token_range),
	[ODP_TEST_A_TYPE] = NLA_POLICY_MAX(NLA_U8, 7),
	[ODP_TEST_A_QUEUE] = NLA_POLICY_FULL_RANGE(NLA_U32, &odp_queue_range),
	[ODP_TEST_A_ERROR] = { .type = NLA_FLAG },
};

static const struct genl_ops odp_ops[] = {
	{
		.cmd = ODP_TEST_CMD_GET_DEVICE,
		.flags = GENL_ADMIN_PERM,
		.doit = odp_nl_get_device_doit,
		.dumpit = odp_nl_get_device_dumpit,
		.policy = odp_device_attrs,
		.maxattr = ARRAY_SIZE(odp_device_attrs) - 1,
	},
	{
		.cmd = ODP_TEST_CMD_GET_CAPS,
		.flags = GENL_ADMIN_PERM,
		.doit = odp_nl_get_caps_doit,
		.policy = odp_device_attrs,
		.maxattr = ARRAY_SIZE(odp_device_attrs) - 1,
	},
	{
		.cmd = ODP_TEST_CMD_SET_MODE,
		.flags = GENL_ADMIN_PERM,
		.doit = odp_nl_set_mode_doit,
		.policy = odp_mode_attrs,
		.maxattr = ARRAY_SIZE(odp_mode_attrs) - 1,
	},
	{
		.cmd = ODP_TEST_CMD_SET_POLICY,
		.flags = GENL_ADMIN_PERM,
		.doit = odp_nl_set_policy_doit,
		.policy = odp_policy_attrs,
		.maxattr = ARRAY_SIZE(odp_policy_attrs) - 1,
	},
	{
		.cmd = ODP_TEST_CMD_DEL_POLICY,
		.flags = GENL_ADMIN_PERM,
		.doit = odp_nl_del_policy_doit,
		.policy = odp_policy_attrs,
		.maxattr = ARRAY_SIZE(odp_policy_attrs) - 1,
	},
	{
		.cmd = ODP_TEST_CMD_RESUME,
		.flags = GENL_ADMIN_PERM,
		.doit = odp_nl_resume_doit,
		.policy = odp_resume_attrs,
		.maxattr = ARRAY_SIZE(odp_resume_attrs) - 1,
	},
};

/**
 * odp_nl_init() - Register the family
 *
 * The ops are set here and not where the family is defined: commands lead to
 * events, which are sent by nl_family.c.
 *
 * Return: 0 or an errno.
 */
int __init odp_nl_init(void)
{
	odp_family.ops = odp_ops;
	odp_family.n_ops = ARRAY_SIZE(odp_ops);
	return genl_register_family(&odp_family);
}

/**
 * odp_nl_exit() - Unregister the family
 *
 * Context: Waits for commands that run.
 */
void odp_nl_exit(void)
{
	genl_unregister_family(&odp_family);
}
