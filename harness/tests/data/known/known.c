/* SPDX-License-Identifier: MIT */
/*
 * Defects of stock kernels (docs/known-defects.md) without odp-harness: a C compiler and libibverbs are all that is needed.
 *
 *     cc -O2 -Wall -o known known.c -libverbs && ./known CASE [DEVICE [GID_INDEX]]
 *
 * The device is connected to itself. Exit status 0: no defect; 1: the defect is there, and stdout
 * describes it; 2: the case could not be tried here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <infiniband/verbs.h>
#include <rdma/ib_user_ioctl_cmds.h>
#include <rdma/ib_user_verbs.h>
#include <rdma/rdma_user_ioctl.h>

#define PAGE 4096
#define PAGES 4
#define ALL (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ)

enum { BEHAVES, DEFECT, CANNOT_TRY };

struct rig {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_qp *qp[2];
	uint8_t *memory[2];
	struct ibv_mr *local;
	int gid_index;
};

static void give_up(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fprintf(stderr, ": %s\n", strerror(errno));
	exit(CANNOT_TRY);
}

static void *need(void *made, const char *what)
{
	if (!made || made == MAP_FAILED)
		give_up("%s", what);
	return made;
}

static void open_device(struct rig *rig, const char *name)
{
	struct ibv_device **devices = need(ibv_get_device_list(NULL), "ibv_get_device_list");

	for (; *devices; devices++)
		if (!name || !strcmp(name, ibv_get_device_name(*devices)))
			break;
	if (!*devices)
		give_up("no RDMA device %s", name ? name : "at all");
	rig->context = need(ibv_open_device(*devices), "ibv_open_device");
}

static void connect_to(struct rig *rig, struct ibv_qp *qp, uint32_t peer, enum ibv_mtu mtu)
{
	struct ibv_port_attr port;
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = ALL };

	if (ibv_query_port(rig->context, 1, &port))
		give_up("ibv_query_port");
	if (ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS))
		give_up("INIT");
	attr = (struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTR, .path_mtu = mtu, .dest_qp_num = peer, .max_dest_rd_atomic = 1,
		.min_rnr_timer = 12, .ah_attr = { .dlid = port.lid, .port_num = 1 },
	};
	if (port.link_layer == IBV_LINK_LAYER_ETHERNET) {
		attr.ah_attr.is_global = 1;
		attr.ah_attr.grh.hop_limit = 1;
		attr.ah_attr.grh.sgid_index = rig->gid_index;
		if (ibv_query_gid(rig->context, 1, rig->gid_index, &attr.ah_attr.grh.dgid))
			give_up("ibv_query_gid");
	}
	if (ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
			  IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER))
		give_up("RTR (another GID_INDEX?)");
	attr = (struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTS, .timeout = 18, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 1,
	};
	if (ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
			  IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC))
		give_up("RTS");
}

static void set_up(struct rig *rig, const char *name, enum ibv_mtu mtu)
{
	struct ibv_qp_init_attr init = {
		.qp_type = IBV_QPT_RC, .cap = { .max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1 },
	};

	open_device(rig, name);
	rig->pd = need(ibv_alloc_pd(rig->context), "ibv_alloc_pd");
	rig->cq = need(ibv_create_cq(rig->context, 8, NULL, NULL, 0), "ibv_create_cq");
	init.send_cq = init.recv_cq = rig->cq;
	for (int end = 0; end < 2; end++) {
		rig->qp[end] = need(ibv_create_qp(rig->pd, &init), "ibv_create_qp");
		rig->memory[end] = need(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
					     -1, 0), "mmap");
	}
	connect_to(rig, rig->qp[0], rig->qp[1]->qp_num, mtu);
	connect_to(rig, rig->qp[1], rig->qp[0]->qp_num, mtu);
	for (int byte = 0; byte < PAGES * PAGE; byte++)
		rig->memory[0][byte] = 1 + byte % 251;
	memset(rig->memory[1], 0, PAGES * PAGE);
	rig->local = need(ibv_reg_mr(rig->pd, rig->memory[0], PAGES * PAGE, ALL), "ibv_reg_mr");
}

/* An RDMA write of the whole local memory; the status of its completion. */
static enum ibv_wc_status write_all(struct rig *rig, uint64_t address, uint32_t rkey)
{
	struct ibv_sge element = {
		.addr = (uintptr_t)rig->memory[0], .length = PAGES * PAGE, .lkey = rig->local->lkey,
	};
	struct ibv_send_wr *bad, work = {
		.sg_list = &element, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED,
		.wr.rdma = { .remote_addr = address, .rkey = rkey },
	};
	struct ibv_wc done;
	int count;

	errno = ibv_post_send(rig->qp[0], &work, &bad);
	if (errno)
		give_up("ibv_post_send");
	while (!(count = ibv_poll_cq(rig->cq, 1, &done)))
		;
	if (count < 0)
		give_up("ibv_poll_cq");
	return done.status;
}

static int arrived(struct rig *rig, enum ibv_wc_status status)
{
	if (status) {
		printf("the write ended with: %s\n", ibv_wc_status_str(status));
		return DEFECT;
	}
	for (int byte = 0; byte < PAGES * PAGE; byte++)
		if (rig->memory[0][byte] != rig->memory[1][byte]) {
			printf("success was reported, but byte %d is %#x and not %#x\n", byte, rig->memory[1][byte],
			       rig->memory[0][byte]);
			return DEFECT;
		}
	return BEHAVES;
}

/* rxe-odp-offset: packets smaller than a page. */
static int offset(struct rig *rig)
{
	struct ibv_mr *mr = need(ibv_reg_mr(rig->pd, rig->memory[1], PAGES * PAGE, ALL | IBV_ACCESS_ON_DEMAND),
				 "registering on demand");

	return arrived(rig, write_all(rig, (uintptr_t)rig->memory[1], mr->rkey));
}

/* rxe-odp-iova: registered at another address. A kernel with the defect may oops. */
static int iova(struct rig *rig)
{
	uint64_t address = (uintptr_t)rig->memory[1] + (1ull << 40);
	struct ibv_mr *mr = need(ibv_reg_mr_iova2(rig->pd, rig->memory[1], PAGES * PAGE, address,
						  ALL | IBV_ACCESS_ON_DEMAND), "registering on demand");

	return arrived(rig, write_all(rig, address, mr->rkey));
}

/* rxe-rereg-toggle, mlx5-rereg-toggle: a pinned region is re-registered on demand, then its pages are discarded.
 * By write() to the command fd: libibverbs may not pass the command on for every device.
 */
static int rereg_toggle(struct rig *rig)
{
	struct ibv_mr *mr = need(ibv_reg_mr(rig->pd, rig->memory[1], PAGES * PAGE, ALL), "ibv_reg_mr");
	struct ib_uverbs_rereg_mr_resp answer = { };
	struct {
		struct ib_uverbs_cmd_hdr header;
		struct ib_uverbs_rereg_mr body;
	} request = {
		.header = {
			.command = IB_USER_VERBS_CMD_REREG_MR, .in_words = sizeof(request) / 4,
			.out_words = sizeof(answer) / 4,
		},
		.body = {
			.response = (uintptr_t)&answer, .mr_handle = mr->handle, .flags = IBV_REREG_MR_CHANGE_ACCESS,
			.access_flags = ALL | IBV_ACCESS_ON_DEMAND,
		},
	};

	if (write(rig->context->cmd_fd, &request, sizeof(request)) != sizeof(request)) {
		printf("refused, as it may be\n");
		return BEHAVES;
	}
	if (madvise(rig->memory[1], PAGES * PAGE, MADV_DONTNEED))
		give_up("madvise");
	return arrived(rig, write_all(rig, (uintptr_t)rig->memory[1], answer.rkey));
}

/*
 * Advise the kernel to prefetch the first page of a region for reading; return if it accepted, errno has why not.
 * By ioctl(): libibverbs may not pass it on for every device.
 */
static int prefetched(struct rig *rig, struct ibv_mr *mr, uint32_t flags)
{
	struct ibv_sge element = { .addr = (uintptr_t)rig->memory[1], .length = PAGE, .lkey = mr->lkey };
	struct {
		struct ib_uverbs_ioctl_hdr header;
		struct ib_uverbs_attr attributes[4];
	} request = {
		.header = {
			.length = sizeof(request), .object_id = UVERBS_OBJECT_MR, .method_id = UVERBS_METHOD_ADVISE_MR,
			.num_attrs = 4,
		},
		.attributes = {
			{ .attr_id = UVERBS_ATTR_ADVISE_MR_PD_HANDLE, .data = rig->pd->handle },
			{ .attr_id = UVERBS_ATTR_ADVISE_MR_ADVICE, .len = 8, .data = 0 },
			{ .attr_id = UVERBS_ATTR_ADVISE_MR_FLAGS, .len = 4, .data = flags },
			{ .attr_id = UVERBS_ATTR_ADVISE_MR_SGE_LIST, .len = sizeof(element),
			  .data = (uintptr_t)&element },
		},
	};
	int status = -1;

	for (int attribute = 0; attribute < 4; attribute++)
		request.attributes[attribute].flags = UVERBS_ATTR_F_MANDATORY;
	/* The request must name the driver of the device: the kernel refuses any other number with EINVAL. */
	for (int driver = 0; driver < 32 && status && (status == -1 ? 1 : errno == EINVAL); driver++) {
		request.header.driver_id = driver;
		status = ioctl(rig->context->cmd_fd, RDMA_VERBS_IOCTL, &request) ? -1 : 0;
	}
	return !status;
}

/* rxe-advise-pinned: prefetch of a pinned region. */
static int advise_pinned(struct rig *rig)
{
	struct ibv_mr *mr = need(ibv_reg_mr(rig->pd, rig->memory[1], PAGES * PAGE, ALL), "ibv_reg_mr");

	if (!prefetched(rig, mr, 0))
		return BEHAVES;
	printf("prefetching a region without on-demand paging was not refused\n");
	return DEFECT;
}

/* rxe-advise-read-only: prefetch, to read, of a region that may be read and not be written. */
static int advise_read_only(struct rig *rig)
{
	struct ibv_mr *mr = need(ibv_reg_mr(rig->pd, rig->memory[1], PAGES * PAGE,
					    IBV_ACCESS_REMOTE_READ | IBV_ACCESS_ON_DEMAND), "registering on demand");

	if (prefetched(rig, mr, IB_UVERBS_ADVISE_MR_FLAG_FLUSH))
		return BEHAVES;
	printf("prefetching, to read, a region that may only be read was refused: %s\n", strerror(errno));
	return DEFECT;
}

/* rxe-receive-error: a receive into a region that may not be written is a local protection error. */
static int receive_error(struct rig *rig)
{
	struct ibv_mr *mr = need(ibv_reg_mr(rig->pd, rig->memory[1], PAGES * PAGE, IBV_ACCESS_REMOTE_READ),
				 "ibv_reg_mr");
	struct ibv_sge from = { .addr = (uintptr_t)rig->memory[0], .length = PAGE, .lkey = rig->local->lkey };
	struct ibv_sge to = { .addr = (uintptr_t)rig->memory[1], .length = PAGE, .lkey = mr->lkey };
	struct ibv_recv_wr *bad_receive, receive = { .sg_list = &to, .num_sge = 1 };
	struct ibv_send_wr *bad_send, send = {
		.sg_list = &from, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED,
	};
	struct ibv_wc done;
	int count;

	errno = ibv_post_recv(rig->qp[1], &receive, &bad_receive);
	if (!errno)
		errno = ibv_post_send(rig->qp[0], &send, &bad_send);
	if (errno)
		give_up("posting");
	do {
		while (!(count = ibv_poll_cq(rig->cq, 1, &done)))
			;
		if (count < 0)
			give_up("ibv_poll_cq");
	} while (done.qp_num != rig->qp[1]->qp_num);
	if (done.status == IBV_WC_LOC_PROT_ERR)
		return BEHAVES;
	printf("a receive into a region that may not be written ended with: %s\n", ibv_wc_status_str(done.status));
	return DEFECT;
}

/* rxe-local-error: a write from an unknown lkey is a local error of that work request, and no flush. */
static int local_error(struct rig *rig)
{
	struct ibv_mr *mr = need(ibv_reg_mr(rig->pd, rig->memory[1], PAGES * PAGE, ALL), "ibv_reg_mr");
	enum ibv_wc_status status;

	rig->local->lkey ^= 0x5500;
	status = write_all(rig, (uintptr_t)rig->memory[1], mr->rkey);
	if (status == IBV_WC_LOC_PROT_ERR)
		return BEHAVES;
	printf("a write from an unknown lkey ended with: %s\n", ibv_wc_status_str(status));
	return DEFECT;
}

/* A thread of real-time priority discards the pages, `delay_ns` after deregistration begins. */
struct discard {
	void *memory;
	long delay_ns;
};

static void *discard(void *argument)
{
	struct discard *discard = argument;
	struct timespec delay = { .tv_sec = 0, .tv_nsec = discard->delay_ns };

	nanosleep(&delay, NULL);
	madvise(discard->memory, PAGES * PAGE, MADV_DONTNEED);
	return NULL;
}

/* True if the kernel has reported a bad page since boot: TAINT_BAD_PAGE. */
static int bad_page(void)
{
	unsigned long taint = 0;
	FILE *file = need(fopen("/proc/sys/kernel/tainted", "r"), "/proc/sys/kernel/tainted");

	if (fscanf(file, "%lu", &taint) != 1)
		give_up("/proc/sys/kernel/tainted");
	fclose(file);
	return !!(taint & 1 << 5);
}

/*
 * mlx5-dirty-free: a region is deregistered; its pages are discarded while the driver waits for the device with the
 * region's lock. The discarding thread gets the lock next: same CPU, highest priority.
 */
static int dirty_free(struct rig *rig)
{
	struct sched_param first = { .sched_priority = 10 };
	pthread_attr_t attributes;
	cpu_set_t one;
	long usual_ns = 0;

	if (bad_page()) {
		fprintf(stderr, "the kernel has reported a bad page already\n");
		return CANNOT_TRY;
	}
	CPU_ZERO(&one);
	CPU_SET(0, &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		give_up("sched_setaffinity");
	pthread_attr_init(&attributes);
	pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
	pthread_attr_setschedpolicy(&attributes, SCHED_FIFO);
	pthread_attr_setschedparam(&attributes, &first);
	for (int turn = 0; turn < 400 && !bad_page(); turn++) {
		uint8_t *memory = need(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
				       "mmap");
		struct discard pages = { .memory = memory, .delay_ns = usual_ns * (turn % 100) / 100 };
		struct timespec began, ended;
		struct ibv_mr *mr;
		pthread_t thread;

		memset(memory, 1, PAGES * PAGE);
		mr = need(ibv_reg_mr(rig->pd, memory, PAGES * PAGE, ALL | IBV_ACCESS_ON_DEMAND), "ibv_reg_mr");
		errno = turn ? pthread_create(&thread, &attributes, discard, &pages) : 0;
		if (errno)
			give_up("a thread of real-time priority (root?)");
		clock_gettime(CLOCK_MONOTONIC, &began);
		ibv_dereg_mr(mr);
		clock_gettime(CLOCK_MONOTONIC, &ended);
		if (turn)
			pthread_join(thread, NULL);
		else
			usual_ns = (ended.tv_sec - began.tv_sec) * 1000000000L + ended.tv_nsec - began.tv_nsec;
		/* The pages come back into use, and the kernel looks at them. */
		memset(memory, 2, PAGES * PAGE);
		munmap(memory, PAGES * PAGE);
	}
	if (!bad_page())
		return BEHAVES;
	printf("a page was changed when it was free: see `Bad page state` in the kernel's log\n");
	return DEFECT;
}

/* Thread: discard the pages in a loop, each time a little later after the last. */
static void *keep_discarding(void *memory)
{
	for (long turn = 0;; turn++) {
		struct timespec pause = { .tv_sec = 0, .tv_nsec = turn % 50 * 200000 };

		madvise(memory, PAGES * PAGE, MADV_DONTNEED);
		nanosleep(&pause, NULL);
	}
	return NULL;
}

/* mlx5-implicit-child: all writes into an implicit region must succeed while its pages are discarded. */
static int implicit_child(struct rig *rig)
{
	struct ibv_mr *mr = need(ibv_reg_mr(rig->pd, NULL, SIZE_MAX, ALL | IBV_ACCESS_ON_DEMAND),
				 "registering the whole address space");
	time_t end = time(NULL) + 50;
	enum ibv_wc_status status;
	pthread_t thread;
	long writes = 0;

	if (write_all(rig, (uintptr_t)rig->memory[1], mr->rkey))
		give_up("a write into an implicit region whose pages are there");
	errno = pthread_create(&thread, NULL, keep_discarding, rig->memory[1]);
	if (errno)
		give_up("pthread_create");
	while (time(NULL) < end) {
		status = write_all(rig, (uintptr_t)rig->memory[1], mr->rkey);
		writes++;
		if (status) {
			printf("write %ld into an implicit region whose pages are discarded ended with: %s\n", writes,
			       ibv_wc_status_str(status));
			return DEFECT;
		}
	}
	return BEHAVES;
}

static const struct {
	const char *name;
	int (*run)(struct rig *rig);
	enum ibv_mtu mtu;
} cases[] = {
	{ "rxe-odp-offset", offset, IBV_MTU_1024 },
	{ "rxe-odp-iova", iova, IBV_MTU_1024 },
	{ "rereg-toggle", rereg_toggle, IBV_MTU_1024 },
	{ "rxe-advise-pinned", advise_pinned, IBV_MTU_1024 },
	{ "rxe-advise-read-only", advise_read_only, IBV_MTU_1024 },
	{ "rxe-local-error", local_error, IBV_MTU_1024 },
	{ "rxe-receive-error", receive_error, IBV_MTU_1024 },
	{ "mlx5-dirty-free", dirty_free, IBV_MTU_1024 },
	{ "mlx5-implicit-child", implicit_child, IBV_MTU_1024 },
};

int main(int argc, char **argv)
{
	struct rig rig = { .gid_index = argc > 3 ? atoi(argv[3]) : 0 };

	for (unsigned int each = 0; argc > 1 && each < sizeof(cases) / sizeof(*cases); each++) {
		if (strcmp(argv[1], cases[each].name))
			continue;
		set_up(&rig, argc > 2 ? argv[2] : NULL, cases[each].mtu);
		return cases[each].run(&rig);
	}
	fprintf(stderr, "usage: %s CASE [DEVICE [GID_INDEX]]; cases:", argv[0]);
	for (unsigned int each = 0; each < sizeof(cases) / sizeof(*cases); each++)
		fprintf(stderr, " %s", cases[each].name);
	fprintf(stderr, "\n");
	return CANNOT_TRY;
}
