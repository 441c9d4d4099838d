// SPDX-License-Identifier: GPL-2.0
/* Events on their way: queued where they are seen, told and acted on in a worker. */
#include <linux/ktime.h>
#include <linux/moduleparam.h>
#include <linux/slab.h>

#include "odp_test.h"
#include "trace.h"

static unsigned int queue_limit = 8192;
module_param(queue_limit, uint, 0644);
MODULE_PARM_DESC(queue_limit, "events that may wait for the worker; more are lost, and counted");

static struct workqueue_struct *events_wq;

static void odp_event_delayed_work(struct work_struct *work);

/* An event in interrupt or probe context; counts one there is no room for. */
struct odp_event *odp_event_alloc(struct odp_device *dev)
{
	struct odp_event *event = NULL;

	if (READ_ONCE(dev->queued) < READ_ONCE(queue_limit))
		event = kzalloc(sizeof(*event), GFP_ATOMIC | __GFP_NOWARN);
	if (!event) {
		odp_count(dev, ODP_TEST_STAT_LOST_MEMORY);
		return NULL;
	}
	event->seen_ns = ktime_get_ns();
	event->dev = dev;
	odp_device_hold(dev);
	INIT_DELAYED_WORK(&event->later, odp_event_delayed_work);
	return event;
}

static void odp_event_free(struct odp_event *event)
{
	odp_device_put(event->dev);
	kfree(event);
}

void odp_event_queue(struct odp_event *event)
{
	struct odp_device *dev = event->dev;
	unsigned long flags;

	spin_lock_irqsave(&dev->lock, flags);
	list_add_tail(&event->entry, &dev->pending);
	dev->queued++;
	/* Work has a reference of its own; until unlocked it waits for it. */
	if (queue_work(events_wq, &dev->work))
		odp_device_hold(dev);
	spin_unlock_irqrestore(&dev->lock, flags);
}

static void odp_event_delayed_work(struct work_struct *work)
{
	struct odp_event *event = container_of(to_delayed_work(work),
					       struct odp_event, later);
	struct odp_device *dev = event->dev;

	spin_lock_irq(&dev->lock);
	list_del(&event->entry);
	spin_unlock_irq(&dev->lock);
	odp_resume_event(dev, event, false);
	odp_count(dev, ODP_TEST_STAT_HANDLED);
	odp_event_free(event);
}

/* The worker of a card that went would wait for nothing: @gone is set before. */
static bool odp_event_delay(struct odp_event *event, u32 delay_us)
{
	struct odp_device *dev = event->dev;
	bool alive;

	spin_lock_irq(&dev->lock);
	alive = !READ_ONCE(dev->gone);
	if (alive) {
		list_add_tail(&event->entry, &dev->waiting);
		queue_delayed_work(events_wq, &event->later,
				   usecs_to_jiffies(delay_us));
	}
	spin_unlock_irq(&dev->lock);
	if (alive)
		odp_count(dev, ODP_TEST_STAT_DELAYED);
	return alive;
}

/* Do what the policy says; true if the event is kept for later. */
static bool odp_event_act(struct odp_event *event, u32 delay_us, bool delivered)
{
	struct odp_device *dev = event->dev;

	switch (event->action) {
	case ODP_TEST_ACTION_FORWARD:
		odp_count(dev, delivered ? ODP_TEST_STAT_FORWARDED :
				      ODP_TEST_STAT_UNRESOLVED);
		return false;
	case ODP_TEST_ACTION_DELAY:
		if (odp_event_delay(event, delay_us))
			return true;
		break;
	case ODP_TEST_ACTION_DOUBLE:
		odp_resume_event(dev, event, false);
		fallthrough;
	case ODP_TEST_ACTION_RESUME:
		odp_resume_event(dev, event, false);
		break;
	case ODP_TEST_ACTION_FAIL:
		odp_resume_event(dev, event, true);
		break;
	case ODP_TEST_ACTION_DROP:
		odp_count(dev, ODP_TEST_STAT_DROPPED);
		return false;
	default:
		odp_count(dev, ODP_TEST_STAT_UNRESOLVED);
		return false;
	}
	odp_count(dev, ODP_TEST_STAT_HANDLED);
	return false;
}

static void odp_event_dispatch(struct odp_event *event)
{
	struct odp_device *dev = event->dev;
	u32 delay_us = 0;
	int err;

	event->dispatched_ns = ktime_get_ns();
	if (event->source == ODP_TEST_SOURCE_OWN) {
		if (event->sub_type <= ODP_SUB_MEMORY)
			event->action = odp_policy_action(dev, event, &delay_us);
		else
			odp_count(dev, ODP_TEST_STAT_UNKNOWN);
	}
	trace_odp_event(event);
	err = odp_nl_event(event);
	if (err == -ENOBUFS)
		odp_count(dev, ODP_TEST_STAT_OVERRUNS);
	else if (err == -ENOMEM)
		odp_count(dev, ODP_TEST_STAT_LOST_MEMORY);
	if (event->source != ODP_TEST_SOURCE_OWN || !odp_event_act(event, delay_us, !err))
		odp_event_free(event);
}

void odp_events_dispatch(struct work_struct *work)
{
	struct odp_device *dev = container_of(work, struct odp_device, work);
	struct odp_event *event;

	for (;;) {
		spin_lock_irq(&dev->lock);
		event = list_first_entry_or_null(&dev->pending,
						 struct odp_event, entry);
		if (event) {
			list_del(&event->entry);
			dev->queued--;
		}
		spin_unlock_irq(&dev->lock);
		if (!event)
			break;
		odp_event_dispatch(event);
		cond_resched();
	}
	odp_device_put(dev);
}

/* Let what waits for its time run now. */
void odp_events_kick(struct odp_device *dev)
{
	struct odp_event *event;

	spin_lock_irq(&dev->lock);
	list_for_each_entry(event, &dev->waiting, entry)
		mod_delayed_work(events_wq, &event->later, 0);
	spin_unlock_irq(&dev->lock);
}

int odp_events_init(void)
{
	events_wq = alloc_workqueue("mlx5_odp_test", WQ_UNBOUND, 0);
	return events_wq ? 0 : -ENOMEM;
}

void odp_events_exit(void)
{
	destroy_workqueue(events_wq);
	/* Cards are freed after a grace period. */
	rcu_barrier();
}
