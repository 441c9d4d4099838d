/* SPDX-License-Identifier: GPL-2.0 */
/* Shared by all files of the module. */
#ifndef MLX5_ODP_TEST_H
#define MLX5_ODP_TEST_H

#include <linux/atomic.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mlx5/driver.h>
#include <linux/mlx5/eq.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/rcupdate.h>
#include <linux/rwsem.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include "uapi/mlx5_odp_test.h"

#define ODP_NAME_BYTES	64
#define ODP_CAPS_BYTES	256
#define ODP_EQE_BYTES	64
#define ODP_DEMAND_LAST	BIT(7)

/* Sub-types of page-fault events; the headers of Linux 6.1 lack the third. */
enum {
	ODP_SUB_WQE,
	ODP_SUB_RDMA,
	ODP_SUB_MEMORY,
};

struct netlink_ext_ack;

/**
 * struct odp_event - Page-fault event, the union of all forms
 * @entry: in &odp_device.pending or &odp_device.waiting
 * @delayed: resumes the fault when its delay is over
 * @dev: the device, with a reference
 * @token: of the resume command
 * @va: address (RDMA and memory form)
 * @seen_ns: CLOCK_MONOTONIC in the interrupt or the probe
 * @dispatched_ns: CLOCK_MONOTONIC in the worker
 * @queue: work queue, or QPN of 2015
 * @bytes_committed: bytes done before the fault
 * @packet_length: WQE and RDMA form
 * @rkey: RDMA form
 * @op_length: RDMA form
 * @key: memory form
 * @demand: bytes asked for, memory form
 * @pre: bytes before @va, memory form
 * @post: bytes behind @va + @demand, memory form
 * @error: error of an observed resume
 * @wqe_index: WQE form
 * @source: enum odp_test_source
 * @sub_type: ODP_SUB_*
 * @type: three bits; the flags of 2015
 * @flags: memory form, ODP_DEMAND_LAST
 * @action: enum odp_test_action, chosen by policy
 * @has_raw: @raw is valid (own mode)
 * @raw: the EQE
 *
 * All members are in host byte order but @raw.
 */
struct odp_event {
	struct list_head entry;
	struct delayed_work delayed;
	struct odp_device *dev;
	u64 token;
	u64 va;
	u64 seen_ns;
	u64 dispatched_ns;
	u32 queue;
	u32 bytes_committed;
	u32 packet_length;
	u32 rkey;
	u32 op_length;
	u32 key;
	u32 demand;
	u32 pre;
	u32 post;
	s32 error;
	u16 wqe_index;
	u8 source;
	u8 sub_type;
	u8 type;
	u8 flags;
	u8 action;
	bool has_raw;
	u8 raw[ODP_EQE_BYTES];
};

/**
 * struct odp_policy - Action for the faults which a selector matches
 * @entry: in &odp_device.policies
 * @value: QPN, queue, token or key
 * @delay_us: of ODP_TEST_ACTION_DELAY
 * @selector: enum odp_test_selector
 * @action: enum odp_test_action
 */
struct odp_policy {
	struct list_head entry;
	u64 value;
	u32 delay_us;
	u8 selector;
	u8 action;
};

/**
 * struct odp_resume - PAGE_FAULT_RESUME command and its result
 * @token: 24 bits, in memory form 48
 * @queue: work queue, or QPN of 2015
 * @form: enum odp_test_form
 * @type: three bits; the flags of 2015
 * @error: resume with error
 * @status: result: command status of the device
 * @syndrome: result: syndrome of the device
 * @ret: result: errno of mlx5_core, -EREMOTEIO if the device refused
 */
struct odp_resume {
	u64 token;
	u32 queue;
	u8 form;
	u8 type;
	bool error;
	u8 status;
	u32 syndrome;
	int ret;
};

/**
 * struct odp_device - An mlx5 device
 * @entry: in odp_devices
 * @ref: held by the list, by requests, and by events and works in flight
 * @rcu: frees it
 * @mdev: mlx5_core's device; not to be touched once @gone is set
 * @parent: @mdev's struct device; probes compare it with that of an ib_device
 * @name: bus name
 * @flags_2015: events have a QPN and flags, no token
 * @alive: held for reading while a command runs and for writing to change
 *	@mode or to set @gone
 * @gone: the device is being removed
 * @mode: enum odp_test_mode
 * @policy_lock: protects @policies and @n_policies
 * @policies: list of &struct odp_policy
 * @n_policies: length of @policies
 * @eq: page-fault event queue in own mode
 * @nb: called by the interrupt of @eq
 * @eq_lock: protects the consumer counter of @eq; taken in interrupts
 * @lock: protects @pending, @waiting and @queued
 * @pending: events not dispatched yet
 * @waiting: events whose resume is delayed
 * @queued: length of @pending
 * @work: dispatches @pending
 * @stats: enum odp_test_stat
 */
struct odp_device {
	struct list_head entry;
	struct kref ref;
	struct rcu_head rcu;
	struct mlx5_core_dev *mdev;
	struct device *parent;
	char name[ODP_NAME_BYTES];
	bool flags_2015;

	struct rw_semaphore alive;
	bool gone;
	u8 mode;

	struct mutex policy_lock;	/* protects policies, n_policies */
	struct list_head policies;
	unsigned int n_policies;

	struct mlx5_eq *eq;
	struct notifier_block nb;
	spinlock_t eq_lock;		/* protects eq's consumer counter */

	spinlock_t lock;		/* protects pending, waiting, queued */
	struct list_head pending;
	struct list_head waiting;
	unsigned int queued;
	struct work_struct work;

	atomic64_t stats[__ODP_TEST_STAT_MAX];
};

static inline void odp_count(struct odp_device *dev, enum odp_test_stat stat)
{
	atomic64_inc(&dev->stats[stat]);
}

/* device.c */
extern struct mutex odp_devices_lock;
extern struct list_head odp_devices;
struct odp_device *odp_device_get_by_name(const char *name);
struct odp_device *odp_device_get_by_parent(const struct device *parent);
struct odp_device *odp_device_find(const struct mlx5_core_dev *mdev);
void odp_device_hold(struct odp_device *dev);
void odp_device_put(struct odp_device *dev);

/* devices.c */
int odp_devices_init(void);
void odp_devices_exit(void);
int odp_set_mode(struct odp_device *dev, u8 mode, u32 pagefault_size,
		 struct netlink_ext_ack *extack);

/* caps.c */
int odp_query_caps(struct odp_device *dev, bool max, void *page);
void odp_driver_caps(struct odp_device *dev, bool max, void *page);
u32 odp_transport_caps(const void *page, unsigned int scheme,
		       unsigned int transport);
bool odp_memory_scheme(const void *page);

/* resume.c */
void odp_resume(struct odp_device *dev, struct odp_resume *resume);
void odp_resume_event(struct odp_device *dev, const struct odp_event *event,
		      bool error);
u8 odp_event_form(const struct odp_device *dev, const struct odp_event *event);

/* policies.c */
u8 odp_policy_action(struct odp_device *dev, const struct odp_event *event,
		     u32 *delay_us);
int odp_policy_set(struct odp_device *dev, u8 selector, u64 value, u8 action,
		   u32 delay_us, struct netlink_ext_ack *extack);
int odp_policy_del(struct odp_device *dev, u8 selector, u64 value);
void odp_policies_clear(struct odp_device *dev);

/* events.c */
int odp_events_init(void);
void odp_events_exit(void);
struct odp_event *odp_event_alloc(struct odp_device *dev);
void odp_event_queue(struct odp_event *event);
void odp_events_dispatch(struct work_struct *work);
void odp_events_kick(struct odp_device *dev);

/* eq.c */
int odp_eq_start(struct odp_device *dev, struct netlink_ext_ack *extack);
void odp_eq_stop(struct odp_device *dev);

/* kprobes.c */
int odp_probes_init(void);
void odp_probes_exit(void);
int odp_probes_start(u32 pagefault_size, struct netlink_ext_ack *extack);
void odp_probes_stop(void);

/* nl_family.c */
int odp_nl_event(struct odp_event *event);

/* nl_ops.c */
int odp_nl_init(void);
void odp_nl_exit(void);

#endif
