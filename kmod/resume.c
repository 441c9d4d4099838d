// SPDX-License-Identifier: GPL-2.0
/* PAGE_FAULT_RESUME in its three forms; reports the status of the device. */
#include <linux/mlx5/device.h>

#include "odp_test.h"
#include "trace.h"

#define RESUME_ERROR		BIT(31)
#define TYPE_SHIFT		24
#define QUEUE_MASK		GENMASK(23, 0)

/**
 * odp_resume() - Execute PAGE_FAULT_RESUME
 * @dev: the device
 * @resume: the command; its result is written
 *
 * The form of 2015 is the transport form with the flags as type, the QPN as
 * queue and no token.
 */
void odp_resume(struct odp_device *dev, struct odp_resume *resume)
{
	__be32 out[4] = {}, in[4] = {};
	u32 head = resume->error ? RESUME_ERROR : 0;
	u32 tail = 0;

	switch (resume->form) {
	case ODP_TEST_FORM_MEMORY:
		head |= (resume->token >> 32) & 0xffff;
		tail = lower_32_bits(resume->token);
		break;
	case ODP_TEST_FORM_TRANSPORT:
		tail = resume->token & QUEUE_MASK;
		fallthrough;
	default:
		head |= (resume->type & 7) << TYPE_SHIFT;
		head |= resume->queue & QUEUE_MASK;
	}
	in[0] = cpu_to_be32(MLX5_CMD_OP_PAGE_FAULT_RESUME << 16);
	in[2] = cpu_to_be32(head);
	in[3] = cpu_to_be32(tail);

	down_read(&dev->alive);
	if (dev->gone)
		resume->ret = -ENODEV;
	else
		resume->ret = mlx5_cmd_do(dev->mdev, in, sizeof(in), out,
					  sizeof(out));
	up_read(&dev->alive);
	resume->status = be32_to_cpu(out[0]) >> 24;
	resume->syndrome = be32_to_cpu(out[1]);
	odp_count(dev, resume->ret ? ODP_TEST_STAT_RESUMES_REFUSED :
				     ODP_TEST_STAT_RESUMES);
	trace_odp_resume(dev, resume);
}

/**
 * odp_event_form() - Choose the resume form for an event
 * @dev: the device
 * @event: the event
 *
 * Return: enum odp_test_form.
 */
u8 odp_event_form(const struct odp_device *dev, const struct odp_event *event)
{
	if (event->sub_type == ODP_SUB_MEMORY)
		return ODP_TEST_FORM_MEMORY;
	return dev->flags_2015 ? ODP_TEST_FORM_2015 : ODP_TEST_FORM_TRANSPORT;
}

/**
 * odp_resume_event() - Resume the fault of an event
 * @dev: the device
 * @event: the event
 * @error: resume with error
 *
 * Of several memory events for one fault only the last needs a resume.
 */
void odp_resume_event(struct odp_device *dev, const struct odp_event *event,
		      bool error)
{
	struct odp_resume resume = {
		.form = odp_event_form(dev, event),
		.token = event->token,
		.queue = event->queue,
		.type = event->type,
		.error = error,
	};

	if (resume.form == ODP_TEST_FORM_MEMORY && !error &&
	    !(event->flags & ODP_DEMAND_LAST))
		return;
	odp_resume(dev, &resume);
}
