/* SPDX-License-Identifier: GPL-2.0 */
/* What the module's files share. */
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

/* Sub-types of page-fault events; Linux 6.1's headers have no third. */
enum {
	ODP_SUB_WQE,
	ODP_SUB_RDMA,
	ODP_SUB_MEMORY,
};

struct netlink_ext_ack;

/* A page fault as all forms together tell it; host byte order. */
struct odp_event {
	struct list_head entry;
	struct delayed_work later;
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

struct odp_policy {
	struct list_head entry;
	u64 value;
	u32 delay_us;
	u8 selector;
	u8 action;
};

struct odp_resume {
	u64 token;
	u32 queue;
	u8 form;
	u8 type;
	bool error;
	/* the answer */
	u8 status;
	u32 syndrome;
	int ret;
};

/*
 * A card. Commands hold @alive for reading and check @gone; whoever changes
 * the mode, or takes the card away, holds it for writing. Events and work on
 * their way hold references.
 */
struct odp_device {
	struct list_head entry;
	struct kref ref;
	struct rcu_head rcu;
	struct mlx5_core_dev *mdev;
	struct device *parent;		/* to compare with, also in a probe */
	char name[ODP_NAME_BYTES];
	bool flags_2015;

	struct rw_semaphore alive;
	bool gone;
	u8 mode;

	struct mutex policy_lock;	/* of the policies */
	struct list_head policies;
	unsigned int n_policies;

	struct mlx5_eq *eq;
	struct notifier_block nb;
	spinlock_t eq_lock;		/* of the consumer counter, in interrupts */

	spinlock_t lock;		/* of the lists below */
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

/* devices.c */
extern struct mutex odp_devices_lock;
extern struct list_head odp_devices;
int odp_devices_init(void);
void odp_devices_exit(void);
struct odp_device *odp_device_get_by_name(const char *name);
struct odp_device *odp_device_get_by_parent(const struct device *parent);
void odp_device_hold(struct odp_device *dev);
void odp_device_put(struct odp_device *dev);
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

/* events.c */
int odp_events_init(void);
void odp_events_exit(void);
struct odp_event *odp_event_alloc(struct odp_device *dev);
void odp_event_queue(struct odp_event *event);
void odp_events_dispatch(struct work_struct *work);
void odp_events_kick(struct odp_device *dev);

/* policies.c */
u8 odp_policy_action(struct odp_device *dev, const struct odp_event *event,
		  u32 *delay_us);
int odp_policy_set(struct odp_device *dev, u8 selector, u64 value, u8 action,
		   u32 delay_us, struct netlink_ext_ack *extack);
int odp_policy_del(struct odp_device *dev, u8 selector, u64 value);
void odp_policies_clear(struct odp_device *dev);

/* eq.c */
int odp_eq_start(struct odp_device *dev, struct netlink_ext_ack *extack);
void odp_eq_stop(struct odp_device *dev);

/* kprobes.c */
int odp_probes_start(u32 pagefault_size, struct netlink_ext_ack *extack);
void odp_probes_stop(void);
int odp_probes_init(void);
void odp_probes_exit(void);

/* nl_family.c */
int odp_nl_init(void);
void odp_nl_exit(void);
int odp_nl_event(struct odp_event *event);

#endif
