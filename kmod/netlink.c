// SPDX-License-Identifier: GPL-2.0
/* The generic netlink family: commands in, answers and events out. */
#include <net/genetlink.h>
#include <net/sock.h>

#include "odp_test.h"

#define DELAY_MOST_US	60000000

/* Not const: Linux 6.1's policies point to what may be written. */
static struct netlink_range_validation token_range = { .max = BIT_ULL(48) - 1 };
static struct netlink_range_validation queue_range = { .max = BIT(24) - 1 };
static struct netlink_range_validation delay_range = { .max = DELAY_MOST_US };
static struct netlink_range_validation size_range = { .min = 1, .max = PAGE_SIZE };

#define DEVICE_POLICY { .type = NLA_NUL_STRING, .len = sizeof_field(struct odp_device, name) - 1 }

static const struct nla_policy device_policy[] = {
	[ODP_TEST_A_DEVICE] = DEVICE_POLICY,
};

static const struct nla_policy mode_policy[] = {
	[ODP_TEST_A_DEVICE] = DEVICE_POLICY,
	[ODP_TEST_A_MODE] = NLA_POLICY_MAX(NLA_U8, __ODP_TEST_MODE_END - 1),
	[ODP_TEST_A_PAGEFAULT_SIZE] = NLA_POLICY_FULL_RANGE(NLA_U32, &size_range),
};

static const struct nla_policy policy_policy[] = {
	[ODP_TEST_A_DEVICE] = DEVICE_POLICY,
	[ODP_TEST_A_SELECTOR] = NLA_POLICY_MAX(NLA_U8, __ODP_TEST_SELECT_END - 1),
	[ODP_TEST_A_VALUE] = NLA_POLICY_FULL_RANGE(NLA_U64, &token_range),
	[ODP_TEST_A_ACTION] = NLA_POLICY_RANGE(NLA_U8, ODP_TEST_ACTION_FORWARD,
					       __ODP_TEST_ACTION_END - 1),
	[ODP_TEST_A_DELAY_US] = NLA_POLICY_FULL_RANGE(NLA_U32, &delay_range),
};

static const struct nla_policy resume_policy[] = {
	[ODP_TEST_A_DEVICE] = DEVICE_POLICY,
	[ODP_TEST_A_FORM] = NLA_POLICY_MAX(NLA_U8, __ODP_TEST_FORM_END - 1),
	[ODP_TEST_A_TOKEN] = NLA_POLICY_FULL_RANGE(NLA_U64, &token_range),
	[ODP_TEST_A_TYPE] = NLA_POLICY_MAX(NLA_U8, 7),
	[ODP_TEST_A_QUEUE] = NLA_POLICY_FULL_RANGE(NLA_U32, &queue_range),
	[ODP_TEST_A_ERROR] = { .type = NLA_FLAG },
};

static struct genl_family family;

/* The card that a request names, with a reference. */
static struct odp_device *named(struct genl_info *info)
{
	struct odp_device *dev;

	if (GENL_REQ_ATTR_CHECK(info, ODP_TEST_A_DEVICE))
		return ERR_PTR(-EINVAL);
	dev = odp_device_get(nla_data(info->attrs[ODP_TEST_A_DEVICE]));
	if (!dev) {
		NL_SET_ERR_MSG_ATTR(info->extack, info->attrs[ODP_TEST_A_DEVICE],
				    "no mlx5 card of that name");
		return ERR_PTR(-ENODEV);
	}
	return dev;
}

static int put_u64(struct sk_buff *skb, int attr, u64 value)
{
	return nla_put_u64_64bit(skb, attr, value, ODP_TEST_A_PAD);
}

static int put_stats(struct sk_buff *skb, struct odp_device *dev)
{
	struct nlattr *nest = nla_nest_start(skb, ODP_TEST_A_STATS);
	unsigned int stat;

	if (!nest)
		return -EMSGSIZE;
	/* 0 is no statistic: it may pad. */
	for (stat = 1; stat < __ODP_TEST_STAT_END; stat++)
		if (nla_put_u64_64bit(skb, stat, atomic64_read(&dev->stats[stat]),
				      ODP_TEST_STAT_UNSPEC))
			return -EMSGSIZE;
	nla_nest_end(skb, nest);
	return 0;
}

static int put_card(struct sk_buff *skb, struct odp_device *dev)
{
	u8 form = dev->flags_2015 ? ODP_TEST_FORM_2015 : ODP_TEST_FORM_TRANSPORT;
	u8 page[ODP_CAPS_BYTES];

	down_read(&dev->alive);
	if (!dev->gone) {
		odp_driver_caps(dev, false, page);
		if (odp_memory_scheme(page))
			form = ODP_TEST_FORM_MEMORY;
	}
	up_read(&dev->alive);
	if (nla_put_string(skb, ODP_TEST_A_DEVICE, dev->name) ||
	    nla_put_u8(skb, ODP_TEST_A_FORM, form) ||
	    nla_put_u8(skb, ODP_TEST_A_MODE, READ_ONCE(dev->mode)) ||
	    nla_put_u32(skb, ODP_TEST_A_QUEUED, READ_ONCE(dev->queued)))
		return -EMSGSIZE;
	return put_stats(skb, dev);
}

/* A reply with room for a page of attributes, its header made. */
static struct sk_buff *reply_new(struct genl_info *info, void **header)
{
	struct sk_buff *skb = genlmsg_new(NLMSG_GOODSIZE, GFP_KERNEL);

	if (!skb)
		return NULL;
	*header = genlmsg_put_reply(skb, info, &family, 0, info->genlhdr->cmd);
	if (!*header) {
		nlmsg_free(skb);
		return NULL;
	}
	return skb;
}

static int reply_send(struct sk_buff *skb, void *header, int err,
		      struct genl_info *info)
{
	if (err) {
		nlmsg_free(skb);
		return err;
	}
	genlmsg_end(skb, header);
	return genlmsg_reply(skb, info);
}

static int get_card(struct sk_buff *request, struct genl_info *info)
{
	struct odp_device *dev = named(info);
	struct sk_buff *skb;
	void *header;
	int err;

	if (IS_ERR(dev))
		return PTR_ERR(dev);
	skb = reply_new(info, &header);
	err = skb ? reply_send(skb, header, put_card(skb, dev), info) : -ENOMEM;
	odp_device_put(dev);
	return err;
}

/* Of how many were told already; cards that come and go meanwhile may be missed. */
static int dump_devices(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct odp_device *dev;
	long index = 0;
	void *header;
	int err = 0;

	mutex_lock(&odp_devices_lock);
	list_for_each_entry(dev, &odp_devices, entry) {
		if (index++ < cb->args[0])
			continue;
		header = genlmsg_put(skb, NETLINK_CB(cb->skb).portid,
				     cb->nlh->nlmsg_seq, &family, NLM_F_MULTI,
				     ODP_TEST_CMD_GET_DEVICE);
		err = header ? put_card(skb, dev) : -EMSGSIZE;
		if (err) {
			genlmsg_cancel(skb, header);
			break;
		}
		genlmsg_end(skb, header);
		cb->args[0] = index;
	}
	mutex_unlock(&odp_devices_lock);
	return skb->len ? skb->len : err;
}

static int put_scheme(struct sk_buff *skb, int attr, const void *page,
		      unsigned int scheme)
{
	struct nlattr *nest = nla_nest_start(skb, attr);
	unsigned int transport;

	if (!nest)
		return -EMSGSIZE;
	for (transport = 0; transport < ODP_TEST_TRANSPORT_DC; transport++)
		if (nla_put_u32(skb, transport + 1,
				odp_transport_caps(page, scheme, transport)))
			return -EMSGSIZE;
	nla_nest_end(skb, nest);
	return 0;
}

static int put_caps(struct sk_buff *skb, int attr, const void *page)
{
	struct nlattr *nest = nla_nest_start(skb, attr);

	if (!nest ||
	    put_scheme(skb, ODP_TEST_SCHEME_TRANSPORT, page, 0) ||
	    put_scheme(skb, ODP_TEST_SCHEME_MEMORY, page, 1) ||
	    nla_put_u8(skb, ODP_TEST_SCHEME_MEM_PAGE_FAULT, odp_memory_scheme(page)))
		return -EMSGSIZE;
	nla_nest_end(skb, nest);
	return 0;
}

static int fill_caps(struct sk_buff *skb, struct odp_device *dev)
{
	u8 page[ODP_CAPS_BYTES];
	unsigned int max;
	int err = 0;

	down_read(&dev->alive);
	if (dev->gone)
		err = -ENODEV;
	for (max = 0; max < 2 && !err; max++) {
		err = odp_query_caps(dev, max, page);
		if (!err)
			err = put_caps(skb, max ? ODP_TEST_A_CAPS_MAX : ODP_TEST_A_CAPS_CUR, page);
		if (!err)
			err = nla_put(skb, max ? ODP_TEST_A_CAPS_MAX_RAW : ODP_TEST_A_CAPS_CUR_RAW,
				      sizeof(page), page);
		if (err)
			break;
		odp_driver_caps(dev, max, page);
		err = nla_put(skb, max ? ODP_TEST_A_CAPS_MAX_DRIVER : ODP_TEST_A_CAPS_CUR_DRIVER,
			      sizeof(page), page);
	}
	up_read(&dev->alive);
	return err;
}

static int get_caps(struct sk_buff *request, struct genl_info *info)
{
	struct odp_device *dev = named(info);
	struct sk_buff *skb;
	void *header;
	int err;

	if (IS_ERR(dev))
		return PTR_ERR(dev);
	skb = reply_new(info, &header);
	err = skb ? reply_send(skb, header, fill_caps(skb, dev), info) : -ENOMEM;
	odp_device_put(dev);
	return err;
}

static int set_mode(struct sk_buff *request, struct genl_info *info)
{
	struct odp_device *dev;
	u32 size = 0;
	u8 mode;
	int err;

	if (GENL_REQ_ATTR_CHECK(info, ODP_TEST_A_MODE))
		return -EINVAL;
	mode = nla_get_u8(info->attrs[ODP_TEST_A_MODE]);
	if (mode == ODP_TEST_MODE_OBSERVE) {
		if (GENL_REQ_ATTR_CHECK(info, ODP_TEST_A_PAGEFAULT_SIZE))
			return -EINVAL;
		size = nla_get_u32(info->attrs[ODP_TEST_A_PAGEFAULT_SIZE]);
	}
	dev = named(info);
	if (IS_ERR(dev))
		return PTR_ERR(dev);
	err = odp_set_mode(dev, mode, size, info->extack);
	if (err)
		NL_SET_BAD_ATTR(info->extack, info->attrs[ODP_TEST_A_MODE]);
	odp_device_put(dev);
	return err;
}

static int set_policy(struct sk_buff *request, struct genl_info *info)
{
	struct nlattr **attrs = info->attrs;
	struct odp_device *dev;
	u8 selector, action;
	int err;

	if (GENL_REQ_ATTR_CHECK(info, ODP_TEST_A_SELECTOR) ||
	    GENL_REQ_ATTR_CHECK(info, ODP_TEST_A_ACTION))
		return -EINVAL;
	selector = nla_get_u8(attrs[ODP_TEST_A_SELECTOR]);
	action = nla_get_u8(attrs[ODP_TEST_A_ACTION]);
	if (selector != ODP_TEST_SELECT_ANY && GENL_REQ_ATTR_CHECK(info, ODP_TEST_A_VALUE))
		return -EINVAL;
	if (selector == ODP_TEST_SELECT_ANY && attrs[ODP_TEST_A_VALUE]) {
		NL_SET_ERR_MSG_ATTR(info->extack, attrs[ODP_TEST_A_VALUE],
				    "the selector for any fault has no value");
		return -EINVAL;
	}
	if (action == ODP_TEST_ACTION_DELAY && GENL_REQ_ATTR_CHECK(info, ODP_TEST_A_DELAY_US))
		return -EINVAL;
	dev = named(info);
	if (IS_ERR(dev))
		return PTR_ERR(dev);
	err = odp_policy_set(dev, selector,
			     attrs[ODP_TEST_A_VALUE] ? nla_get_u64(attrs[ODP_TEST_A_VALUE]) : 0,
			     action,
			     attrs[ODP_TEST_A_DELAY_US] ? nla_get_u32(attrs[ODP_TEST_A_DELAY_US]) : 0,
			     info->extack);
	if (err == -EOPNOTSUPP)
		NL_SET_BAD_ATTR(info->extack, attrs[ODP_TEST_A_SELECTOR]);
	odp_device_put(dev);
	return err;
}

static int del_policy(struct sk_buff *request, struct genl_info *info)
{
	struct nlattr **attrs = info->attrs;
	struct odp_device *dev = named(info);
	int err = 0;

	if (IS_ERR(dev))
		return PTR_ERR(dev);
	if (attrs[ODP_TEST_A_SELECTOR]) {
		err = odp_policy_del(dev, nla_get_u8(attrs[ODP_TEST_A_SELECTOR]),
				     attrs[ODP_TEST_A_VALUE] ?
				     nla_get_u64(attrs[ODP_TEST_A_VALUE]) : 0);
		if (err)
			NL_SET_ERR_MSG_ATTR(info->extack, attrs[ODP_TEST_A_SELECTOR],
					    "no such policy");
	} else {
		mutex_lock(&dev->policy_lock);
		odp_policies_clear(dev);
		mutex_unlock(&dev->policy_lock);
	}
	odp_device_put(dev);
	return err;
}

/* What the form has, no more and no less. */
static int resume_of(struct genl_info *info, struct odp_resume *resume)
{
	static const struct {
		bool token, type, queue;
	} forms[] = {
		[ODP_TEST_FORM_2015] = { false, true, true },
		[ODP_TEST_FORM_TRANSPORT] = { true, true, true },
		[ODP_TEST_FORM_MEMORY] = { true, false, false },
	};
	struct nlattr **attrs = info->attrs;
	bool wanted[] = { false, false, false };
	static const int fields[] = { ODP_TEST_A_TOKEN, ODP_TEST_A_TYPE, ODP_TEST_A_QUEUE };
	unsigned int i;

	if (GENL_REQ_ATTR_CHECK(info, ODP_TEST_A_FORM))
		return -EINVAL;
	resume->form = nla_get_u8(attrs[ODP_TEST_A_FORM]);
	wanted[0] = forms[resume->form].token;
	wanted[1] = forms[resume->form].type;
	wanted[2] = forms[resume->form].queue;
	for (i = 0; i < ARRAY_SIZE(fields); i++) {
		if (wanted[i] && GENL_REQ_ATTR_CHECK(info, fields[i]))
			return -EINVAL;
		if (!wanted[i] && attrs[fields[i]]) {
			NL_SET_ERR_MSG_ATTR(info->extack, attrs[fields[i]],
					    "this form has no such field");
			return -EINVAL;
		}
	}
	if (wanted[0])
		resume->token = nla_get_u64(attrs[ODP_TEST_A_TOKEN]);
	if (wanted[1])
		resume->type = nla_get_u8(attrs[ODP_TEST_A_TYPE]);
	if (wanted[2])
		resume->queue = nla_get_u32(attrs[ODP_TEST_A_QUEUE]);
	resume->error = nla_get_flag(attrs[ODP_TEST_A_ERROR]);
	if (resume->form == ODP_TEST_FORM_TRANSPORT && resume->token >= BIT(24)) {
		NL_SET_ERR_MSG_ATTR(info->extack, attrs[ODP_TEST_A_TOKEN],
				    "tokens of the transport form have 24 bits");
		return -ERANGE;
	}
	return 0;
}

static int fill_resumed(struct sk_buff *skb, const struct odp_resume *resume)
{
	if (nla_put_u8(skb, ODP_TEST_A_STATUS, resume->status) ||
	    nla_put_u32(skb, ODP_TEST_A_SYNDROME, resume->syndrome) ||
	    nla_put_s32(skb, ODP_TEST_A_RET, resume->ret))
		return -EMSGSIZE;
	return 0;
}

/* The device's refusal is an answer, no error; without a device's answer it is one. */
static int resume_fault(struct sk_buff *request, struct genl_info *info)
{
	struct odp_resume resume = {};
	struct odp_device *dev;
	struct sk_buff *skb;
	void *header;
	int err;

	err = resume_of(info, &resume);
	if (err)
		return err;
	dev = named(info);
	if (IS_ERR(dev))
		return PTR_ERR(dev);
	skb = reply_new(info, &header);
	if (!skb) {
		odp_device_put(dev);
		return -ENOMEM;
	}
	odp_resume(dev, &resume);
	odp_device_put(dev);
	err = resume.ret == -EREMOTEIO ? 0 : resume.ret;
	return reply_send(skb, header, err ? err : fill_resumed(skb, &resume), info);
}

static int put_detail(struct sk_buff *skb, const struct odp_event *event)
{
	switch (event->sub_type) {
	case ODP_SUB_WQE:
		return nla_put_u16(skb, ODP_TEST_A_WQE_INDEX, event->wqe_index) ||
		       nla_put_u32(skb, ODP_TEST_A_PACKET_LENGTH, event->packet_length);
	case ODP_SUB_RDMA:
		return nla_put_u32(skb, ODP_TEST_A_RKEY, event->rkey) ||
		       nla_put_u32(skb, ODP_TEST_A_PACKET_LENGTH, event->packet_length) ||
		       nla_put_u32(skb, ODP_TEST_A_OP_LENGTH, event->op_length) ||
		       put_u64(skb, ODP_TEST_A_VA, event->va);
	case ODP_SUB_MEMORY:
		return nla_put_u32(skb, ODP_TEST_A_KEY, event->key) ||
		       nla_put_u8(skb, ODP_TEST_A_FLAGS, event->flags) ||
		       nla_put_u32(skb, ODP_TEST_A_DEMAND, event->demand) ||
		       nla_put_u32(skb, ODP_TEST_A_PRE, event->pre) ||
		       nla_put_u32(skb, ODP_TEST_A_POST, event->post) ||
		       put_u64(skb, ODP_TEST_A_VA, event->va);
	}
	return 0;
}

static int fill_event(struct sk_buff *skb, const struct odp_event *event)
{
	if (nla_put_string(skb, ODP_TEST_A_DEVICE, event->dev->name) ||
	    nla_put_u8(skb, ODP_TEST_A_SOURCE, event->source) ||
	    nla_put_u8(skb, ODP_TEST_A_ACTION, event->action) ||
	    nla_put_u8(skb, ODP_TEST_A_FORM, odp_event_form(event->dev, event)) ||
	    nla_put_u8(skb, ODP_TEST_A_SUB_TYPE, event->sub_type) ||
	    nla_put_u8(skb, ODP_TEST_A_TYPE, event->type) ||
	    nla_put_u32(skb, ODP_TEST_A_QUEUE, event->queue) ||
	    nla_put_u32(skb, ODP_TEST_A_BYTES_COMMITTED, event->bytes_committed) ||
	    put_u64(skb, ODP_TEST_A_TOKEN, event->token) ||
	    put_u64(skb, ODP_TEST_A_SEEN_NS, event->seen_ns) ||
	    put_u64(skb, ODP_TEST_A_DISPATCHED_NS, event->dispatched_ns) ||
	    put_u64(skb, ODP_TEST_A_SENT_NS, ktime_get_ns()) ||
	    put_detail(skb, event))
		return -EMSGSIZE;
	if (event->source == ODP_TEST_SOURCE_RESUME && event->error &&
	    nla_put_flag(skb, ODP_TEST_A_ERROR))
		return -EMSGSIZE;
	if (event->has_raw && nla_put(skb, ODP_TEST_A_RAW, sizeof(event->raw), event->raw))
		return -EMSGSIZE;
	return 0;
}

/* Tell everybody who listens; -ESRCH if nobody does, -ENOBUFS if one had no room. */
int odp_netlink_event(struct odp_event *event)
{
	struct sk_buff *skb;
	void *header;

	if (!genl_has_listeners(&family, &init_net, 0))
		return -ESRCH;
	skb = genlmsg_new(NLMSG_DEFAULT_SIZE, GFP_KERNEL);
	if (!skb)
		return -ENOMEM;
	header = genlmsg_put(skb, 0, 0, &family, 0, ODP_TEST_CMD_EVENT);
	if (!header || fill_event(skb, event)) {
		nlmsg_free(skb);
		return -ENOMEM;
	}
	genlmsg_end(skb, header);
	return genlmsg_multicast(&family, skb, 0, 0, GFP_KERNEL);
}

static const struct genl_ops ops[] = {
	{
		.cmd = ODP_TEST_CMD_GET_DEVICE,
		.flags = GENL_ADMIN_PERM,
		.doit = get_card,
		.dumpit = dump_devices,
		.policy = device_policy,
		.maxattr = ARRAY_SIZE(device_policy) - 1,
	},
	{
		.cmd = ODP_TEST_CMD_GET_CAPS,
		.flags = GENL_ADMIN_PERM,
		.doit = get_caps,
		.policy = device_policy,
		.maxattr = ARRAY_SIZE(device_policy) - 1,
	},
	{
		.cmd = ODP_TEST_CMD_SET_MODE,
		.flags = GENL_ADMIN_PERM,
		.doit = set_mode,
		.policy = mode_policy,
		.maxattr = ARRAY_SIZE(mode_policy) - 1,
	},
	{
		.cmd = ODP_TEST_CMD_SET_POLICY,
		.flags = GENL_ADMIN_PERM,
		.doit = set_policy,
		.policy = policy_policy,
		.maxattr = ARRAY_SIZE(policy_policy) - 1,
	},
	{
		.cmd = ODP_TEST_CMD_DEL_POLICY,
		.flags = GENL_ADMIN_PERM,
		.doit = del_policy,
		.policy = policy_policy,
		.maxattr = ARRAY_SIZE(policy_policy) - 1,
	},
	{
		.cmd = ODP_TEST_CMD_RESUME,
		.flags = GENL_ADMIN_PERM,
		.doit = resume_fault,
		.policy = resume_policy,
		.maxattr = ARRAY_SIZE(resume_policy) - 1,
	},
};

static const struct genl_multicast_group groups[] = {
	{ .name = ODP_TEST_GROUP, .flags = GENL_MCAST_CAP_NET_ADMIN },
};

static struct genl_family family __ro_after_init = {
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

int odp_netlink_init(void)
{
	return genl_register_family(&family);
}

void odp_netlink_exit(void)
{
	genl_unregister_family(&family);
}
