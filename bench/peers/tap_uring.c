/* Would io_uring carry more packets through a tap interface than one system call for each? A measurement for
 * docs/guide/performance.md, in pairs, with no framework:
 *
 *   cc -O2 -pthread -o /tmp/tap_uring bench/peers/tap_uring.c && unshare --net /tmp/tap_uring [PAIRS]
 *
 *   tx  write(2) for each frame            against 32 IORING_OP_WRITE for each io_uring_enter(2)
 *   rx  read(2) till nothing is there      against 32 IORING_OP_READ that are always under way
 *
 * Prints, for each direction, million packets per second of both and their ratio, medians and spread.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BATCH 32
#define HEADER 12
#define FRAME 60
#define BUFFER 2048
#define WINDOW_NS 300000000ULL
#define MAX_PAIRS 101

struct ring {
	int fd;
	unsigned int *sq_tail, *sq_mask, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

static char buffers[BATCH][BUFFER];
static volatile int sending;

static void fail(const char *what)
{
	fprintf(stderr, "tap_uring: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

static void pin(int core)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(core, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* An interface that is up and drops what it is sent early: nobody has its addresses. */
static int open_tap(const char *name)
{
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int size = HEADER, tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK), any = socket(AF_INET, SOCK_DGRAM, 0);

	strcpy(request.ifr_name, name);
	if (tap < 0 || any < 0 || ioctl(tap, TUNSETIFF, &request) < 0 || ioctl(tap, TUNSETVNETHDRSZ, &size) < 0)
		fail("a tap interface cannot be made; run as root, in a network namespace of its own");
	if (ioctl(any, SIOCGIFFLAGS, &request) < 0)
		fail("the interface's flags");
	request.ifr_flags |= IFF_UP;
	if (ioctl(any, SIOCSIFFLAGS, &request) < 0)
		fail("the interface cannot be brought up");
	close(any);
	return tap;
}

static struct ring open_ring(void)
{
	struct io_uring_params p = { .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN };
	struct ring r = { .fd = (int)syscall(__NR_io_uring_setup, 2 * BATCH, &p) };

	if (r.fd < 0)
		fail("io_uring_setup");
	size_t sq = p.sq_off.array + p.sq_entries * sizeof(unsigned int);
	size_t cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	char *rings = mmap(NULL, sq > cq ? sq : cq, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r.fd, IORING_OFF_SQ_RING);
	r.sqes = mmap(NULL, p.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r.fd,
		IORING_OFF_SQES);
	if (rings == MAP_FAILED || r.sqes == MAP_FAILED)
		fail("io_uring's memory");
	r.sq_tail = (unsigned int *)(rings + p.sq_off.tail);
	r.sq_mask = (unsigned int *)(rings + p.sq_off.ring_mask);
	r.cq_head = (unsigned int *)(rings + p.cq_off.head);
	r.cq_tail = (unsigned int *)(rings + p.cq_off.tail);
	r.cq_mask = (unsigned int *)(rings + p.cq_off.ring_mask);
	r.cqes = (struct io_uring_cqe *)(rings + p.cq_off.cqes);
	unsigned int *array = (unsigned int *)(rings + p.sq_off.array);
	for (unsigned int i = 0; i < p.sq_entries; i++)
		array[i] = i;
	return r;
}

static void order(struct ring *r, int op, int fd, unsigned int buffer, unsigned int len)
{
	unsigned int tail = *r->sq_tail;
	struct io_uring_sqe *e = &r->sqes[tail & *r->sq_mask];

	memset(e, 0, sizeof(*e));
	e->opcode = (uint8_t)op;
	e->fd = fd;
	e->addr = (uint64_t)(uintptr_t)buffers[buffer];
	e->len = len;
	e->user_data = buffer;
	__atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
}

static void enter(struct ring *r, unsigned int submit, unsigned int wait)
{
	if (syscall(__NR_io_uring_enter, r->fd, submit, wait, IORING_ENTER_GETEVENTS, NULL, 0) < 0 && errno != EINTR)
		fail("io_uring_enter");
}

static double rate(uint64_t packets, uint64_t from)
{
	return (double)packets * 1e3 / (double)(now() - from);
}

static double tx_write(int tap)
{
	uint64_t start = now(), packets = 0;

	while (now() - start < WINDOW_NS)
		for (int i = 0; i < BATCH; i++)
			packets += write(tap, buffers[i], HEADER + FRAME) == HEADER + FRAME;
	return rate(packets, start);
}

static double tx_ring(int tap)
{
	struct ring r = open_ring();
	uint64_t start = now(), packets = 0;

	while (now() - start < WINDOW_NS) {
		for (unsigned int i = 0; i < BATCH; i++)
			order(&r, IORING_OP_WRITE, tap, i, HEADER + FRAME);
		enter(&r, BATCH, BATCH);
		unsigned int head = *r.cq_head, tail = __atomic_load_n(r.cq_tail, __ATOMIC_ACQUIRE);
		for (; head != tail; head++)
			packets += r.cqes[head & *r.cq_mask].res == HEADER + FRAME;
		__atomic_store_n(r.cq_head, head, __ATOMIC_RELEASE);
	}
	close(r.fd);
	return rate(packets, start);
}

static double rx_read(int tap)
{
	uint64_t start = now(), packets = 0;

	while (now() - start < WINDOW_NS)
		for (int i = 0; i < BATCH && read(tap, buffers[i], BUFFER) > 0; i++)
			packets++;
	return rate(packets, start);
}

static double rx_ring(int tap)
{
	struct ring r = open_ring();
	unsigned int fresh = BATCH;
	uint64_t start, packets = 0;

	for (unsigned int i = 0; i < BATCH; i++)
		order(&r, IORING_OP_READ, tap, i, BUFFER);
	start = now();
	while (now() - start < WINDOW_NS) {
		enter(&r, fresh, 0);
		unsigned int head = *r.cq_head, tail = __atomic_load_n(r.cq_tail, __ATOMIC_ACQUIRE);
		for (fresh = 0; head != tail; head++, fresh++) {
			packets += r.cqes[head & *r.cq_mask].res > 0;
			order(&r, IORING_OP_READ, tap, (unsigned int)r.cqes[head & *r.cq_mask].user_data, BUFFER);
		}
		__atomic_store_n(r.cq_head, head, __ATOMIC_RELEASE);
	}
	double result = rate(packets, start);
	close(r.fd);
	return result;
}

/* Sends frames out of the interface, so that they arrive at the tap. */
static void *generate(void *interface)
{
	int s = socket(AF_PACKET, SOCK_RAW, 0), one = 1;
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_ifindex = *(int *)interface };
	struct mmsghdr all[BATCH] = {0};
	struct iovec piece = { buffers[0] + HEADER, FRAME };

	pin(0);
	if (s < 0 || setsockopt(s, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)) < 0 ||
	    bind(s, (struct sockaddr *)&to, sizeof(to)) < 0)
		fail("a packet socket");
	for (int i = 0; i < BATCH; i++)
		all[i].msg_hdr = (struct msghdr){ .msg_iov = &piece, .msg_iovlen = 1 };
	while (sending)
		sendmmsg(s, all, BATCH, 0);
	close(s);
	return NULL;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void pairs(const char *name, int tap, int count, double (*calls)(int), double (*ring)(int))
{
	double a[MAX_PAIRS], b[MAX_PAIRS], ratio[MAX_PAIRS];

	for (int i = 0; i < count; i++) {
		if (i % 2 == 0) {
			a[i] = calls(tap);
			b[i] = ring(tap);
		} else {
			b[i] = ring(tap);
			a[i] = calls(tap);
		}
		ratio[i] = b[i] / a[i];
	}
	qsort(a, (size_t)count, sizeof(double), by_size);
	qsort(b, (size_t)count, sizeof(double), by_size);
	qsort(ratio, (size_t)count, sizeof(double), by_size);
	printf("%s: calls %.3f Mpps, io_uring %.3f Mpps; in pairs %.2f (%.2f..%.2f)\n", name, a[count / 2], b[count / 2],
		ratio[count / 2], ratio[0], ratio[count - 1]);
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : 11, tap = open_tap("lcuring"), interface = (int)if_nametoindex("lcuring");
	pthread_t generator;

	if (count < 1 || count > MAX_PAIRS)
		count = 11;
	pin(1);
	for (int i = 0; i < BATCH; i++) {
		memset(buffers[i], 0, BUFFER);
		memcpy(buffers[i] + HEADER, "\x02\0\0\0\0\1\x02\0\0\0\0\2\x88\xb5", 14);
	}
	pairs("tx", tap, count, tx_write, tx_ring);
	sending = 1;
	if (pthread_create(&generator, NULL, generate, &interface) != 0)
		fail("a thread");
	pairs("rx", tap, count, rx_read, rx_ring);
	sending = 0;
	pthread_join(generator, NULL);
	return 0;
}
