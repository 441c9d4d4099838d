// SPDX-License-Identifier: GPL-2.0
/* The generic netlink family: what its commands may carry, and events to its group. */
#include <net/genetlink.h>
#include <net/sock.h>

#include "nl.h"

#define MAX_DELAY_US	60000000

/* Not const: Linux 6.1's policies point to what may be written. */
static struct netlink_range_validation token_range = { .max = BIT_ULL(48) - 1 };
static struct netlink_range_validation queue_range = { .max = BIT(24) - 1 };
static struct netlink_range_validation delay_range = { .max = MAX_DELAY_US };
static struct netlink_range_validation size_range = { .min = 1, .max = PAGE_SIZE };

#define DEVICE_POLICY { .type = NLA_NUL_STRING, .len = sizeof_field(struct odp_device, name) - 1 }

static const struct nla_policy device_policy[] = {
	[ODP_TEST_A_DEVICE] = DEVICE_POLICY,
};

static const struct nla_policy mode_policy[] = {
	[ODP_TEST_A_DEVICE] = DEVICE_POLICY,
	[ODP_TEST_A_MODE] = NLA_POLICY_MAX(NLA_U8, ODP_TEST_MODE_MAX),
	[ODP_TEST_A_PAGEFAULT_SIZE] = NLA_POLICY_FULL_RANGE(NLA_U32, &size_range),
};

static const struct nla_policy policy_policy[] = {
	[ODP_TEST_A_DEVICE] = DEVICE_POLICY,
	[ODP_TEST_A_SELECTOR] = NLA_POLICY_MAX(NLA_U8, ODP_TEST_SELECT_MAX),
	[ODP_TEST_A_VALUE] = NLA_POLICY_FULL_RANGE(NLA_U64, &token_range),
	[ODP_TEST_A_ACTION] = NLA_POLICY_RANGE(NLA_U8, ODP_TEST_ACTION_FORWARD,
					       ODP_TEST_ACTION_MAX),
	[ODP_TEST_A_DELAY_US] = NLA_POLICY_FULL_RANGE(NLA_U32, &delay_range),
};

static const struct nla_policy resume_policy[] = {
	[ODP_TEST_A_DEVICE] = DEVICE_POLICY,
	[ODP_TEST_A_FORM] = NLA_POLICY_MAX(NLA_U8, ODP_TEST_FORM_MAX),
	[ODP_TEST_A_TOKEN] = NLA_POLICY_FULL_RANGE(NLA_U64, &token_range),
	[ODP_TEST_A_TYPE] = NLA_POLICY_MAX(NLA_U8, 7),
	[ODP_TEST_A_QUEUE] = NLA_POLICY_FULL_RANGE(NLA_U32, &queue_range),
	[ODP_TEST_A_ERROR] = { .type = NLA_FLAG },
};

/* Tell everybody who listens; -ESRCH if nobody does, -ENOBUFS if one had no room. */
int odp_nl_event(struct odp_event *event)
{
	struct sk_buff *skb;
	void *header;

	if (!genl_has_listeners(&odp_family, &init_net, 0))
		return -ESRCH;
	skb = genlmsg_new(NLMSG_DEFAULT_SIZE, GFP_KERNEL);
	if (!skb)
		return -ENOMEM;
	header = genlmsg_put(skb, 0, 0, &odp_family, 0, ODP_TEST_CMD_EVENT);
	if (!header || odp_fill_event(skb, event)) {
		nlmsg_free(skb);
		return -ENOMEM;
	}
	genlmsg_end(skb, header);
	return genlmsg_multicast(&odp_family, skb, 0, 0, GFP_KERNEL);
}

static const struct genl_ops ops[] = {
	{
		.cmd = ODP_TEST_CMD_GET_DEVICE,
		.flags = GENL_ADMIN_PERM,
		.doit = odp_nl_get_device_doit,
		.dumpit = odp_nl_get_device_dumpit,
		.policy = device_policy,
		.maxattr = ARRAY_SIZE(device_policy) - 1,
	},
	{
		.cmd = ODP_TEST_CMD_GET_CAPS,
		.flags = GENL_ADMIN_PERM,
		.doit = odp_nl_get_caps_doit,
		.policy = device_policy,
		.maxattr = ARRAY_SIZE(device_policy) - 1,
	},
	{
		.cmd = ODP_TEST_CMD_SET_MODE,
		.flags = GENL_ADMIN_PERM,
		.doit = odp_nl_set_mode_doit,
		.policy = mode_policy,
		.maxattr = ARRAY_SIZE(mode_policy) - 1,
	},
	{
		.cmd = ODP_TEST_CMD_SET_POLICY,
		.flags = GENL_ADMIN_PERM,
		.doit = odp_nl_set_policy_doit,
		.policy = policy_policy,
		.maxattr = ARRAY_SIZE(policy_policy) - 1,
	},
	{
		.cmd = ODP_TEST_CMD_DEL_POLICY,
		.flags = GENL_ADMIN_PERM,
		.doit = odp_nl_del_policy_doit,
		.policy = policy_policy,
		.maxattr = ARRAY_SIZE(policy_policy) - 1,
	},
	{
		.cmd = ODP_TEST_CMD_RESUME,
		.flags = GENL_ADMIN_PERM,
		.doit = odp_nl_resume_doit,
		.policy = resume_policy,
		.maxattr = ARRAY_SIZE(resume_policy) - 1,
	},
};

static const struct genl_multicast_group groups[] = {
	{ .name = ODP_TEST_GROUP, .flags = GENL_MCAST_CAP_NET_ADMIN },
};

struct genl_family odp_family __ro_after_init = {
	.name = ODP_TEST_FAMILY,
	.version = ODP_TEST_VERSION,
	.module = THIS_MODULE,
	.parallel_ops = true,
	.ops = ops,
	.n_ops = ARRAY_SIZE(ops),
	.resv_start_op = ODP_TEST_CMD_MAX + 1,
	.mcgrps = groups,
	.n_mcgrps = ARRAY_SIZE(groups),
};

int odp_nl_init(void)
{
	return genl_register_family(&odp_family);
}

void odp_nl_exit(void)
{
	genl_unregister_family(&odp_family);
}
