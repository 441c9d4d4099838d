// SPDX-License-Identifier: GPL-2.0
/* Page-fault events: queued in interrupts and probes, handled by a worker. */
#include <linux/ktime.h>
#include <linux/moduleparam.h>
#include <linux/slab.h>

#include "odp_test.h"
#include "trace.h"

static unsigned int queue_limit = 8192;
module_param(queue_limit, uint, 0644);
MODULE_PARM_DESC(queue_limit, "events that may wait for the worker; more are lost, and counted");

static struct workqueue_struct *events_wq;

static void odp_event_free(struct odp_event *event)
{
	odp_device_put(event->dev);
	kfree(event);
}

/* The delay of an event is over. */
static void odp_event_delayed_work(struct work_struct *work)
{
	struct odp_event *event = container_of(to_delayed_work(work),
					       struct odp_event, delayed);
	struct odp_device *dev = event->dev;

	spin_lock_irq(&dev->lock);
	list_del(&event->entry);
	spin_unlock_irq(&dev->lock);
	odp_resume_event(dev, event, false);
	odp_count(dev, ODP_TEST_STAT_HANDLED);
	odp_event_free(event);
}

/**
 * odp_event_alloc() - Allocate an event
 * @dev: the device
 *
 * Context: Any; called in interrupts and probes.
 * Return: the event, with a reference of the device; NULL without memory or
 * with queue_limit events queued, which is counted.
 */
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
	INIT_DELAYED_WORK(&event->delayed, odp_event_delayed_work);
	return event;
}

/**
 * odp_event_queue() - Hand an event to the worker
 * @event: the event, of odp_event_alloc(); the worker frees it
 *
 * Context: Any.
 */
void odp_event_queue(struct odp_event *event)
{
	struct odp_device *dev = event->dev;
	unsigned long flags;

	spin_lock_irqsave(&dev->lock, flags);
	list_add_tail(&event->entry, &dev->pending);
	dev->queued++;
	/*
	 * The work has a reference of its own. It cannot drop it before it is
	 * taken: the work takes the lock first.
	 */
	if (queue_work(events_wq, &dev->work))
		odp_device_hold(dev);
	spin_unlock_irqrestore(&dev->lock, flags);
}

/* False if the device is gone: odp_events_kick() may have run already. */
static bool odp_event_delay(struct odp_event *event, u32 delay_us)
{
	struct odp_device *dev = event->dev;
	bool alive;

	spin_lock_irq(&dev->lock);
	alive = !READ_ONCE(dev->gone);
	if (alive) {
		list_add_tail(&event->entry, &dev->waiting);
		queue_delayed_work(events_wq, &event->delayed,
				   usecs_to_jiffies(delay_us));
	}
	spin_unlock_irq(&dev->lock);
	if (alive)
		odp_count(dev, ODP_TEST_STAT_DELAYED);
	return alive;
}

/* Execute the action; true if odp_event_delayed_work() will free the event. */
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
			event->action = odp_policy_action(dev, event,
							  &delay_us);
		else
			odp_count(dev, ODP_TEST_STAT_UNKNOWN);
	}
	trace_odp_event(event);
	err = odp_nl_event(event);
	if (err == -ENOBUFS)
		odp_count(dev, ODP_TEST_STAT_OVERRUNS);
	else if (err == -ENOMEM)
		odp_count(dev, ODP_TEST_STAT_LOST_MEMORY);
	if (event->source != ODP_TEST_SOURCE_OWN ||
	    !odp_event_act(event, delay_us, !err))
		odp_event_free(event);
}

/**
 * odp_events_dispatch() - Report the pending events and execute their actions
 * @work: &odp_device.work; its reference of the device is dropped
 */
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

/**
 * odp_events_kick() - Run delayed resumes now
 * @dev: the device; with &odp_device.gone set no new ones are added
 */
void odp_events_kick(struct odp_device *dev)
{
	struct odp_event *event;

	spin_lock_irq(&dev->lock);
	list_for_each_entry(event, &dev->waiting, entry)
		mod_delayed_work(events_wq, &event->delayed, 0);
	spin_unlock_irq(&dev->lock);
}

/**
 * odp_events_init() - Allocate the workqueue
 *
 * Return: 0 or -ENOMEM.
 */
int odp_events_init(void)
{
	events_wq = alloc_workqueue("mlx5_odp_test", WQ_UNBOUND, 0);
	return events_wq ? 0 : -ENOMEM;
}

/**
 * odp_events_exit() - Finish all work and free the workqueue
 *
 * Context: All devices are removed: no event comes any more.
 */
void odp_events_exit(void)
{
	destroy_workqueue(events_wq);
	/* Devices are freed after a grace period. */
	rcu_barrier();
}
