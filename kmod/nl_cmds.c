// SPDX-License-Identifier: GPL-2.0
/* The commands of the generic netlink family. */
#include <net/genetlink.h>

#include "nl.h"

/* The device of a request, with a reference, or ERR_PTR(). */
static struct odp_device *odp_nl_device(struct genl_info *info)
{
	struct odp_device *dev;

	if (GENL_REQ_ATTR_CHECK(info, ODP_TEST_A_DEVICE))
		return ERR_PTR(-EINVAL);
	dev = odp_device_get_by_name(nla_data(info->attrs[ODP_TEST_A_DEVICE]));
	if (!dev) {
		NL_SET_ERR_MSG_ATTR(info->extack,
				    info->attrs[ODP_TEST_A_DEVICE],
				    "no mlx5 card of that name");
		return ERR_PTR(-ENODEV);
	}
	return dev;
}

/* Allocate a reply of a page, with its header; NULL without memory. */
static struct sk_buff *odp_nl_reply_new(struct genl_info *info, void **header)
{
	struct sk_buff *skb = genlmsg_new(NLMSG_GOODSIZE, GFP_KERNEL);

	if (!skb)
		return NULL;
	*header = genlmsg_put_reply(skb, info, &odp_family, 0,
				    info->genlhdr->cmd);
	if (!*header) {
		nlmsg_free(skb);
		return NULL;
	}
	return skb;
}

/* Send a reply, or free it if there was an error; returns that error. */
static int odp_nl_reply_send(struct sk_buff *skb, void *header, int err,
			     struct genl_info *info)
{
	if (err) {
		nlmsg_free(skb);
		return err;
	}
	genlmsg_end(skb, header);
	return genlmsg_reply(skb, info);
}

/**
 * odp_nl_get_device_doit() - Execute GET_DEVICE
 * @request: the request
 * @info: its attributes
 *
 * Return: 0 or an errno.
 */
int odp_nl_get_device_doit(struct sk_buff *request, struct genl_info *info)
{
	struct odp_device *dev = odp_nl_device(info);
	struct sk_buff *skb;
	void *header;
	int err;

	if (IS_ERR(dev))
		return PTR_ERR(dev);
	skb = odp_nl_reply_new(info, &header);
	err = skb ? odp_nl_reply_send(skb, header, odp_fill_device(skb, dev),
				      info) : -ENOMEM;
	odp_device_put(dev);
	return err;
}

/**
 * odp_nl_get_device_dumpit() - Execute GET_DEVICE for all devices
 * @skb: the message to fill
 * @cb: args[0] is the number of devices dumped so far
 *
 * A dump of more than one message may miss devices which are added or removed
 * meanwhile.
 *
 * Return: length of @skb, 0 at the end, or an errno.
 */
int odp_nl_get_device_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
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
				     cb->nlh->nlmsg_seq, &odp_family,
				     NLM_F_MULTI, ODP_TEST_CMD_GET_DEVICE);
		err = header ? odp_fill_device(skb, dev) : -EMSGSIZE;
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

/**
 * odp_nl_get_caps_doit() - Execute GET_CAPS
 * @request: the request
 * @info: its attributes
 *
 * Return: 0 or an errno.
 */
int odp_nl_get_caps_doit(struct sk_buff *request, struct genl_info *info)
{
	struct odp_device *dev = odp_nl_device(info);
	struct sk_buff *skb;
	void *header;
	int err;

	if (IS_ERR(dev))
		return PTR_ERR(dev);
	skb = odp_nl_reply_new(info, &header);
	err = skb ? odp_nl_reply_send(skb, header, odp_fill_caps(skb, dev),
				      info) : -ENOMEM;
	odp_device_put(dev);
	return err;
}

/**
 * odp_nl_set_mode_doit() - Execute SET_MODE
 * @request: the request
 * @info: its attributes
 *
 * Return: 0 or an errno.
 */
int odp_nl_set_mode_doit(struct sk_buff *request, struct genl_info *info)
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
	dev = odp_nl_device(info);
	if (IS_ERR(dev))
		return PTR_ERR(dev);
	err = odp_set_mode(dev, mode, size, info->extack);
	if (err)
		NL_SET_BAD_ATTR(info->extack, info->attrs[ODP_TEST_A_MODE]);
	odp_device_put(dev);
	return err;
}

/**
 * odp_nl_set_policy_doit() - Execute SET_POLICY
 * @request: the request
 * @info: its attributes
 *
 * Return: 0 or an errno.
 */
int odp_nl_set_policy_doit(struct sk_buff *request, struct genl_info *info)
{
	struct nlattr **attrs = info->attrs;
	struct odp_device *dev;
	u8 selector, action;
	u32 delay_us = 0;
	u64 value = 0;
	int err;

	if (GENL_REQ_ATTR_CHECK(info, ODP_TEST_A_SELECTOR) ||
	    GENL_REQ_ATTR_CHECK(info, ODP_TEST_A_ACTION))
		return -EINVAL;
	selector = nla_get_u8(attrs[ODP_TEST_A_SELECTOR]);
	action = nla_get_u8(attrs[ODP_TEST_A_ACTION]);
	if (selector != ODP_TEST_SELECT_ANY &&
	    GENL_REQ_ATTR_CHECK(info, ODP_TEST_A_VALUE))
		return -EINVAL;
	if (selector == ODP_TEST_SELECT_ANY && attrs[ODP_TEST_A_VALUE]) {
		NL_SET_ERR_MSG_ATTR(info->extack, attrs[ODP_TEST_A_VALUE],
				    "the selector for any fault has no value");
		return -EINVAL;
	}
	if (action == ODP_TEST_ACTION_DELAY &&
	    GENL_REQ_ATTR_CHECK(info, ODP_TEST_A_DELAY_US))
		return -EINVAL;
	dev = odp_nl_device(info);
	if (IS_ERR(dev))
		return PTR_ERR(dev);
	if (attrs[ODP_TEST_A_VALUE])
		value = nla_get_u64(attrs[ODP_TEST_A_VALUE]);
	if (attrs[ODP_TEST_A_DELAY_US])
		delay_us = nla_get_u32(attrs[ODP_TEST_A_DELAY_US]);
	err = odp_policy_set(dev, selector, value, action, delay_us,
			     info->extack);
	if (err == -EOPNOTSUPP)
		NL_SET_BAD_ATTR(info->extack, attrs[ODP_TEST_A_SELECTOR]);
	odp_device_put(dev);
	return err;
}

/**
 * odp_nl_del_policy_doit() - Execute DEL_POLICY
 * @request: the request
 * @info: its attributes
 *
 * Return: 0 or an errno.
 */
int odp_nl_del_policy_doit(struct sk_buff *request, struct genl_info *info)
{
	struct nlattr **attrs = info->attrs;
	struct odp_device *dev = odp_nl_device(info);
	u64 value = 0;
	int err = 0;

	if (IS_ERR(dev))
		return PTR_ERR(dev);
	if (attrs[ODP_TEST_A_VALUE])
		value = nla_get_u64(attrs[ODP_TEST_A_VALUE]);
	if (attrs[ODP_TEST_A_SELECTOR]) {
		err = odp_policy_del(dev,
				     nla_get_u8(attrs[ODP_TEST_A_SELECTOR]),
				     value);
		if (err)
			NL_SET_ERR_MSG_ATTR(info->extack,
					    attrs[ODP_TEST_A_SELECTOR],
					    "no such policy");
	} else {
		mutex_lock(&dev->policy_lock);
		odp_policies_clear(dev);
		mutex_unlock(&dev->policy_lock);
	}
	odp_device_put(dev);
	return err;
}

/* Parse RESUME: all fields of the form must be there, and no others. */
static int odp_nl_parse_resume(struct genl_info *info,
			       struct odp_resume *resume)
{
	static const struct {
		bool token, type, queue;
	} forms[] = {
		[ODP_TEST_FORM_2015] = { false, true, true },
		[ODP_TEST_FORM_TRANSPORT] = { true, true, true },
		[ODP_TEST_FORM_MEMORY] = { true, false, false },
	};
	static const int fields[] = {
		ODP_TEST_A_TOKEN, ODP_TEST_A_TYPE, ODP_TEST_A_QUEUE,
	};
	struct nlattr **attrs = info->attrs;
	bool wanted[] = { false, false, false };
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
	if (resume->form == ODP_TEST_FORM_TRANSPORT &&
	    resume->token >= BIT(24)) {
		NL_SET_ERR_MSG_ATTR(info->extack, attrs[ODP_TEST_A_TOKEN],
				    "transport tokens have 24 bits");
		return -ERANGE;
	}
	return 0;
}

/**
 * odp_nl_resume_doit() - Execute RESUME
 * @request: the request
 * @info: its attributes
 *
 * A command which the device refuses is a success: its status is in the reply.
 *
 * Return: 0 or an errno.
 */
int odp_nl_resume_doit(struct sk_buff *request, struct genl_info *info)
{
	struct odp_resume resume = {};
	struct odp_device *dev;
	struct sk_buff *skb;
	void *header;
	int err;

	err = odp_nl_parse_resume(info, &resume);
	if (err)
		return err;
	dev = odp_nl_device(info);
	if (IS_ERR(dev))
		return PTR_ERR(dev);
	skb = odp_nl_reply_new(info, &header);
	if (!skb) {
		odp_device_put(dev);
		return -ENOMEM;
	}
	odp_resume(dev, &resume);
	odp_device_put(dev);
	err = resume.ret == -EREMOTEIO ? 0 : resume.ret;
	if (!err)
		err = odp_fill_resume(skb, &resume);
	return odp_nl_reply_send(skb, header, err, info);
}
