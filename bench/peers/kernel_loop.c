/* What the kernel itself can do: the system calls and rings of a port, and nothing around them. The third side of
 * `linecard bench net`, built and started by it.
 *
 *   kernel_loop KIND INTERFACE CORE
 *     KIND  tap        read() and write() of one frame each, a virtio header before it
 *           af_packet  receive ring (TPACKET_V2), sendmmsg() of 32 frames past the queueing discipline
 *           af_xdp     copy mode, rings of 2048, the kernel called when it asks for it
 *
 * Frames lie where they are sent from all the time. Received ones come to lie in one of KEPT buffers in turn, as with
 * any program that does more with a frame than to forget it, and are not looked at: no pool, no counters but one, no
 * metadata. The loop runs on CORE. How the frames of a packet socket are sent was chosen by
 * measuring (docs/guide/performance.md): one sendmmsg() of 32 is as fast as any. Speaks like a testpmd:
 *
 *   set fwd rxonly|txonly|macswap    what `start` does; macswap sends each received frame back
 *   set txpkts LENGTH
 *   start, stop, show port stats 0, quit
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/if_xdp.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BURST 32
#define VNET 12
#define LONGEST 2048
/* Of libc's and the kernel's headers, some are older than these. */
#ifndef SO_PREFER_BUSY_POLL
#define SO_PREFER_BUSY_POLL 69
#endif
#ifndef SO_BUSY_POLL_BUDGET
#define SO_BUSY_POLL_BUDGET 70
#endif
#ifndef XDP_MAX_TX_SKB_BUDGET
#define XDP_MAX_TX_SKB_BUDGET 9
#endif

/* About what a port's queue and pool have in use. */
#define KEPT 512
static unsigned char kept[KEPT][VNET + LONGEST] __attribute__((aligned(64)));

enum mode { RXONLY, TXONLY, MACSWAP };

static _Atomic uint64_t received;
static _Atomic bool running;
static enum mode mode = RXONLY;
static unsigned int length = 60;
static int core;
static const char *interface;
static unsigned char frame[LONGEST];

static void fail(const char *what)
{
	fprintf(stderr, "kernel_loop: error: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int must(int result, const char *what)
{
	if (result < 0)
		fail(what);
	return result;
}

static void count(uint64_t frames)
{
	atomic_store_explicit(&received, atomic_load_explicit(&received, memory_order_relaxed) + frames,
			      memory_order_relaxed);
}

static bool on(void)
{
	return atomic_load_explicit(&running, memory_order_relaxed);
}

/* UDP that nobody waits for, as a testpmd's. */
static void make_frame(void)
{
	static const unsigned char start[] = { 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 0, 0, 0, 0,
					       0, 64, 17, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2, 0, 9, 0, 9 };
	memset(frame, 0, sizeof(frame));
	memcpy(frame, start, sizeof(start));
	uint16_t ip = htons((uint16_t)(length - 14)), udp = htons((uint16_t)(length - 34));
	memcpy(frame + 16, &ip, 2);
	memcpy(frame + 38, &udp, 2);
}

static void swap_addresses(unsigned char *data)
{
	unsigned char kept[6];

	memcpy(kept, data, 6);
	memcpy(data, data + 6, 6);
	memcpy(data + 6, kept, 6);
}

/* ---- tap ---- */

static int tap;

static void open_tap(void)
{
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int header = VNET;

	tap = must(open("/dev/net/tun", O_RDWR | O_NONBLOCK), "/dev/net/tun");
	strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
	must(ioctl(tap, TUNSETIFF, &request), "TUNSETIFF");
	must(ioctl(tap, TUNSETVNETHDRSZ, &header), "TUNSETVNETHDRSZ");
}

/* The calls themselves: libc's are points of cancellation, which costs a program with threads some 2 % of a write. */
static ssize_t put(const void *bytes, size_t count)
{
	return syscall(SYS_write, tap, bytes, count);
}

static ssize_t get(void *bytes, size_t count)
{
	return syscall(SYS_read, tap, bytes, count);
}

static void run_tap(void)
{
	static unsigned char out[VNET + LONGEST];
	unsigned int next = 0;

	memcpy(out + VNET, frame, length);
	while (on()) {
		if (mode == TXONLY) {
			if (put(out, VNET + length) < 0 && errno != EAGAIN && errno != EIO)
				fail("write");
			continue;
		}
		unsigned char *in = kept[next];
		ssize_t got = get(in, VNET + LONGEST);
		if (got < 0)
			continue;
		next = (next + 1) % KEPT;
		count(1);
		if (mode == MACSWAP) {
			memset(in, 0, VNET);
			swap_addresses(in + VNET);
			if (put(in, (size_t)got) < 0 && errno != EAGAIN)
				fail("write");
		}
	}
}

/* ---- packet sockets ---- */

#define BLOCK 4096
#define FRAME 2048
#define FRAMES 512

static int packet_in, packet_out;
static unsigned char *packet_ring;

static int packet_socket(unsigned short protocol)
{
	struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_protocol = htons(protocol) };
	int fd = must(socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0), "socket");

	address.sll_ifindex = (int)if_nametoindex(interface);
	if (protocol != 0) {
		struct tpacket_req request = { BLOCK, FRAMES * FRAME / BLOCK, FRAME, FRAMES };
		int version = TPACKET_V2;

		must(setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)), "PACKET_VERSION");
		must(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &request, sizeof(request)), "PACKET_RX_RING");
		packet_ring = mmap(NULL, FRAMES * FRAME, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
		if (packet_ring == MAP_FAILED)
			fail("mmap");
	} else {
		int yes = 1, bytes = 8 << 20;

		must(setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &yes, sizeof(yes)), "PACKET_QDISC_BYPASS");
		setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes));
	}
	must(bind(fd, (struct sockaddr *)&address, sizeof(address)), "bind");
	return fd;
}

static void open_af_packet(void)
{
	packet_in = packet_socket(ETH_P_ALL);
	packet_out = packet_socket(0);
}

static void run_af_packet(void)
{
	static struct mmsghdr messages[BURST];
	static struct iovec pieces[BURST];
	/* The ring goes on where it stood when the loop was stopped. */
	static unsigned int at;

	for (int i = 0; i < BURST; i++) {
		pieces[i] = (struct iovec){ frame, length };
		messages[i].msg_hdr = (struct msghdr){ .msg_iov = &pieces[i], .msg_iovlen = 1 };
	}
	while (on()) {
		if (mode == TXONLY) {
			if (sendmmsg(packet_out, messages, BURST, MSG_DONTWAIT) < 0 && errno != EAGAIN && errno != ENOBUFS)
				fail("sendmmsg");
			continue;
		}
		struct tpacket2_hdr *header = (void *)(packet_ring + at * FRAME);
		if (!(__atomic_load_n(&header->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER))
			continue;
		unsigned int bytes = header->tp_snaplen < LONGEST ? header->tp_snaplen : LONGEST;
		memcpy(kept[at % KEPT], (unsigned char *)header + header->tp_mac, bytes);
		if (mode == MACSWAP) {
			/* What this socket sent itself comes by too. */
			struct sockaddr_ll *from = (void *)((unsigned char *)header + TPACKET_ALIGN(sizeof(*header)));
			if (from->sll_pkttype != PACKET_OUTGOING) {
				swap_addresses(kept[at % KEPT]);
				send(packet_out, kept[at % KEPT], bytes, MSG_DONTWAIT);
			}
		}
		__atomic_store_n(&header->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
		count(1);
		at = (at + 1) % FRAMES;
	}
}

/* ---- XDP sockets ---- */

#define DEPTH 2048
#define CHUNK 2048

struct ring {
	uint32_t *producer, *consumer, *flags;
	void *entries;
};

static int xdp, xdp_link;
static unsigned char *umem;
static struct ring fill, completion, rx, tx;

static void map_ring(struct ring *ring, const struct xdp_ring_offset *at, off_t page, size_t entry)
{
	unsigned char *memory = mmap(NULL, at->desc + DEPTH * entry, PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_POPULATE, xdp, page);

	if (memory == MAP_FAILED)
		fail("mmap");
	ring->producer = (uint32_t *)(memory + at->producer);
	ring->consumer = (uint32_t *)(memory + at->consumer);
	ring->flags = (uint32_t *)(memory + at->flags);
	ring->entries = memory + at->desc;
}

static int bpf(int command, union bpf_attr *attributes)
{
	return (int)syscall(SYS_bpf, command, attributes, sizeof(*attributes));
}

/* bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS), on the interface till this process ends. */
static void redirect(void)
{
	union bpf_attr map = { .map_type = BPF_MAP_TYPE_XSKMAP, .key_size = 4, .value_size = 4, .max_entries = 1 };
	int sockets = must(bpf(BPF_MAP_CREATE, &map), "BPF_MAP_CREATE");
	uint32_t key = 0;
	union bpf_attr element = { .map_fd = (uint32_t)sockets, .key = (uintptr_t)&key, .value = (uintptr_t)&xdp };
	struct bpf_insn code[] = {
		{ .code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = 2, .src_reg = 1, .off = 16 },
		{ .code = BPF_LD | BPF_IMM | BPF_DW, .dst_reg = 1, .src_reg = BPF_PSEUDO_MAP_FD, .imm = sockets },
		{ 0 },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 3, .imm = XDP_PASS },
		{ .code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_redirect_map },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr program = { .prog_type = BPF_PROG_TYPE_XDP,
				   .insn_cnt = sizeof(code) / sizeof(*code),
				   .insns = (uintptr_t)code,
				   .license = (uintptr_t) "MIT" };
	int loaded = must(bpf(BPF_PROG_LOAD, &program), "BPF_PROG_LOAD");

	must(bpf(BPF_MAP_UPDATE_ELEM, &element), "BPF_MAP_UPDATE_ELEM");
	for (int native = 1; native >= 0; native--) {
		union bpf_attr link = { .link_create = { .prog_fd = (uint32_t)loaded,
							 .target_ifindex = if_nametoindex(interface),
							 .attach_type = BPF_XDP,
							 .flags = native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE } };
		xdp_link = bpf(BPF_LINK_CREATE, &link);
		if (xdp_link >= 0)
			return;
	}
	fail("BPF_LINK_CREATE");
}

static void open_af_xdp(void)
{
	size_t bytes = 2 * DEPTH * CHUNK;
	struct xdp_umem_reg memory = { .len = bytes, .chunk_size = CHUNK };
	struct sockaddr_xdp address = { .sxdp_family = AF_XDP,
					.sxdp_flags = XDP_COPY | XDP_USE_NEED_WAKEUP,
					.sxdp_ifindex = if_nametoindex(interface) };
	struct xdp_mmap_offsets at;
	socklen_t size = sizeof(at);
	int depth = DEPTH, yes = 1, micros = 20, budget = 64, buffer = 8 << 20, call = 256;

	xdp = must(socket(AF_XDP, SOCK_RAW, 0), "socket");
	umem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (umem == MAP_FAILED)
		fail("mmap");
	memory.addr = (uintptr_t)umem;
	must(setsockopt(xdp, SOL_XDP, XDP_UMEM_REG, &memory, sizeof(memory)), "XDP_UMEM_REG");
	for (int ring = XDP_RX_RING; ring <= XDP_UMEM_COMPLETION_RING; ring++)
		if (ring != XDP_UMEM_REG)
			must(setsockopt(xdp, SOL_XDP, ring, &depth, sizeof(depth)), "a ring");
	must(getsockopt(xdp, SOL_XDP, XDP_MMAP_OFFSETS, &at, &size), "XDP_MMAP_OFFSETS");
	map_ring(&rx, &at.rx, XDP_PGOFF_RX_RING, sizeof(struct xdp_desc));
	map_ring(&tx, &at.tx, XDP_PGOFF_TX_RING, sizeof(struct xdp_desc));
	map_ring(&fill, &at.fr, XDP_UMEM_PGOFF_FILL_RING, sizeof(uint64_t));
	map_ring(&completion, &at.cr, XDP_UMEM_PGOFF_COMPLETION_RING, sizeof(uint64_t));
	/* As the ports on either side: calls drive the queue, where that is allowed. */
	setsockopt(xdp, SOL_SOCKET, SO_PREFER_BUSY_POLL, &yes, sizeof(yes));
	setsockopt(xdp, SOL_SOCKET, SO_BUSY_POLL, &micros, sizeof(micros));
	setsockopt(xdp, SOL_SOCKET, SO_BUSY_POLL_BUDGET, &budget, sizeof(budget));
	setsockopt(xdp, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof(buffer));
	setsockopt(xdp, SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &call, sizeof(call));
	must(bind(xdp, (struct sockaddr *)&address, sizeof(address)), "bind");
	redirect();
}

/* Takes what was sent home; its places are not told apart. */
static uint32_t complete(void)
{
	uint32_t done = __atomic_load_n(completion.producer, __ATOMIC_ACQUIRE);
	uint32_t count = done - *completion.consumer;

	__atomic_store_n(completion.consumer, done, __ATOMIC_RELEASE);
	return count;
}

static void send_xdp(void)
{
	if (__atomic_load_n(tx.flags, __ATOMIC_ACQUIRE) & XDP_RING_NEED_WAKEUP)
		sendto(xdp, NULL, 0, MSG_DONTWAIT, NULL, 0);
}

static void transmit_xdp(void)
{
	struct xdp_desc *entries = tx.entries;
	/* What is under way when the loop is stopped comes home later. */
	static uint32_t lent;

	/* The second half of the memory holds what is sent. */
	for (uint32_t i = 0; i < DEPTH; i++)
		memcpy(umem + (DEPTH + i) * CHUNK, frame, length);
	while (on()) {
		uint32_t at = *tx.producer;

		lent -= complete();
		for (int i = 0; i < BURST && lent < DEPTH; i++, at++, lent++)
			entries[at % DEPTH] = (struct xdp_desc){ (uint64_t)(DEPTH + at % DEPTH) * CHUNK, length, 0 };
		__atomic_store_n(tx.producer, at, __ATOMIC_RELEASE);
		send_xdp();
	}
}

/* Sends a received frame back from where it lies; `free` places wait for their return. */
static void echo_xdp(const struct xdp_desc *got)
{
	struct xdp_desc *entries = tx.entries;
	uint32_t at = *tx.producer;

	swap_addresses(umem + got->addr);
	entries[at % DEPTH] = (struct xdp_desc){ got->addr, got->len, 0 };
	__atomic_store_n(tx.producer, at + 1, __ATOMIC_RELEASE);
	send_xdp();
}

static void receive_xdp(void)
{
	const struct xdp_desc *entries = rx.entries;
	uint64_t *places = fill.entries;
	uint32_t at = *fill.producer;

	for (; at < DEPTH; at++)
		places[at] = (uint64_t)at * CHUNK;
	__atomic_store_n(fill.producer, at, __ATOMIC_RELEASE);
	while (on()) {
		uint32_t first = *rx.consumer, ready = __atomic_load_n(rx.producer, __ATOMIC_ACQUIRE) - first;

		if (ready == 0) {
			recvfrom(xdp, NULL, 0, MSG_DONTWAIT, NULL, NULL);
			continue;
		}
		ready = ready < BURST ? ready : BURST;
		for (uint32_t i = 0; i < ready; i++) {
			const struct xdp_desc *got = &entries[(first + i) % DEPTH];

			/* One in flight: it has left when the next comes, so its place may be filled again. */
			if (mode == MACSWAP)
				echo_xdp(got);
			places[at++ % DEPTH] = got->addr / CHUNK * CHUNK;
		}
		__atomic_store_n(rx.consumer, first + ready, __ATOMIC_RELEASE);
		__atomic_store_n(fill.producer, at, __ATOMIC_RELEASE);
		count(ready);
		if (mode == MACSWAP)
			complete();
	}
}

static void run_af_xdp(void)
{
	if (mode == TXONLY)
		transmit_xdp();
	else
		receive_xdp();
}

/* ---- the console ---- */

static void (*work)(void);

static void *loop(void *unused)
{
	cpu_set_t set;

	(void)unused;
	CPU_ZERO(&set);
	CPU_SET(core, &set);
	sched_setaffinity(0, sizeof(set), &set);
	work();
	return NULL;
}

static void halt(pthread_t *thread)
{
	if (on()) {
		atomic_store(&running, false);
		pthread_join(*thread, NULL);
	}
}

int main(int argc, char **argv)
{
	char line[256], word[32];
	pthread_t thread;

	if (argc != 4) {
		fprintf(stderr, "kernel_loop: error: give kind, interface and core\n");
		return 1;
	}
	interface = argv[2];
	core = atoi(argv[3]);
	if (strcmp(argv[1], "tap") == 0) {
		open_tap();
		work = run_tap;
	} else if (strcmp(argv[1], "af_packet") == 0) {
		open_af_packet();
		work = run_af_packet;
	} else if (strcmp(argv[1], "af_xdp") == 0) {
		open_af_xdp();
		work = run_af_xdp;
	} else {
		fprintf(stderr, "kernel_loop: error: the kind is tap, af_packet or af_xdp\n");
		return 1;
	}
	printf("testpmd> ");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) != NULL && strncmp(line, "quit", 4) != 0) {
		if (sscanf(line, "set fwd %31s", word) == 1)
			mode = strcmp(word, "txonly") == 0 ? TXONLY : strcmp(word, "macswap") == 0 ? MACSWAP : RXONLY;
		else if (sscanf(line, "set txpkts %u", &length) == 1)
			length = length < 42 ? 42 : length > LONGEST ? LONGEST : length;
		else if (strncmp(line, "start", 5) == 0 && !on()) {
			make_frame();
			atomic_store(&running, true);
			if (pthread_create(&thread, NULL, loop, NULL) != 0)
				fail("pthread_create");
		} else if (strncmp(line, "stop", 4) == 0)
			halt(&thread);
		else if (strncmp(line, "show", 4) == 0)
			printf("  RX-packets: %llu\n", (unsigned long long)atomic_load(&received));
		printf("testpmd> ");
		fflush(stdout);
	}
	halt(&thread);
	return 0;
}
