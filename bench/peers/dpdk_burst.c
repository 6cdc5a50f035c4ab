/* DPDK's side of `linecard bench burst`: the loop of bench/src/burst.rs on net_vhost and net_virtio_user.
 *
 * Built and started by `linecard bench` (cc, pkg-config libdpdk). Both ends of a socket live in this process and one
 * thread drives them, so no cache line changes cores. Reads one case per line from standard input:
 *
 *   burst STEP OPTIONS LENGTH BURST ROUNDS  STEP 0 frontend tx, 1 backend rx, 2 backend tx, 3 frontend rx, 4 all four;
 *                                           OPTIONS of net_virtio_user; LENGTH in bytes
 *                                           -> TSC cycles per packet, and how often the kernel took the core away
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <rte_bus.h>
#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_pause.h>

#define PACKETS 8191
#define DATA_ROOM (2048 + RTE_PKTMBUF_HEADROOM)
#define RING 256
#define MAX_BURST 64
#define MAX_LINKS 16
#define STEPS 4
#define TRIES 1000
#define PATIENCE_MS 5000

/* Two ports at one socket. */
struct link {
	char options[128];
	uint16_t frontend, backend;
};

static struct link links[MAX_LINKS];
static unsigned int link_count;
static struct rte_mempool *shared, *private;

static void fail(const char *what)
{
	fprintf(stderr, "dpdk_burst: %s\n", what);
	exit(1);
}

static long interruptions(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nivcsw : 0;
}

static struct rte_mempool *pool(const char *name)
{
	struct rte_mempool *made = rte_pktmbuf_pool_create(name, PACKETS, 256, 0, DATA_ROOM, rte_socket_id());

	if (made == NULL)
		fail("no memory for packets");
	return made;
}

static uint16_t open_port(const char *name, const char *options, struct rte_mempool *packets)
{
	struct rte_eth_conf conf = {0};
	uint16_t port;

	if (rte_eal_hotplug_add("vdev", name, options) < 0 || rte_eth_dev_get_port_by_name(name, &port) < 0)
		fail("a port cannot be made");
	if (rte_eth_dev_configure(port, 1, 1, &conf) < 0 ||
	    rte_eth_rx_queue_setup(port, 0, RING, rte_socket_id(), NULL, packets) < 0 ||
	    rte_eth_tx_queue_setup(port, 0, RING, rte_socket_id(), NULL) < 0 || rte_eth_dev_start(port) < 0)
		fail("a port does not start");
	return port;
}

static void await_link(uint16_t port)
{
	for (int waited = 0; waited < PATIENCE_MS; waited++) {
		struct rte_eth_link state;

		if (rte_eth_link_get_nowait(port, &state) == 0 && state.link_status == RTE_ETH_LINK_UP)
			return;
		rte_delay_us_sleep(1000);
	}
	fail("the ends do not find each other");
}

static struct link *link_for(const char *options)
{
	const char *folder = getenv("RUNTIME_DIRECTORY");
	char name[64], socket[256], arguments[512];

	for (unsigned int i = 0; i < link_count; i++)
		if (strcmp(links[i].options, options) == 0)
			return &links[i];
	if (link_count == MAX_LINKS)
		fail("too many paths");
	if (shared == NULL) {
		shared = pool("shared");
		private = pool("private");
	}
	struct link *link = &links[link_count];
	snprintf(link->options, sizeof(link->options), "%s", options);
	snprintf(socket, sizeof(socket), "%s/burst-%u.sock", folder != NULL ? folder : "/tmp", link_count);
	snprintf(name, sizeof(name), "net_vhost%u", link_count);
	snprintf(arguments, sizeof(arguments), "iface=%s,queues=1", socket);
	link->backend = open_port(name, arguments, private);
	snprintf(name, sizeof(name), "net_virtio_user%u", link_count);
	snprintf(arguments, sizeof(arguments), "path=%s,queues=1,queue_size=%d,%s", socket, RING, options);
	link->frontend = open_port(name, arguments, shared);
	await_link(link->frontend);
	await_link(link->backend);
	link_count++;
	return link;
}

/* Once per attempt: queues may take a moment after the link is up, but not for ever. */
static void be_patient(unsigned int tries, const char *what)
{
	if (tries > TRIES + PATIENCE_MS)
		fail(what);
	if (tries > TRIES)
		rte_delay_us_sleep(1000);
}

static void send_all(uint16_t port, struct rte_mbuf **packets, unsigned int count)
{
	unsigned int done = 0;

	for (unsigned int tries = 0; done < count; tries++) {
		done += rte_eth_tx_burst(port, 0, packets + done, count - done);
		be_patient(tries, "a burst is not taken");
	}
}

static void receive_all(uint16_t port, struct rte_mbuf **packets, unsigned int count)
{
	unsigned int done = 0;

	for (unsigned int tries = 0; done < count; tries++) {
		done += rte_eth_rx_burst(port, 0, packets + done, count - done);
		be_patient(tries, "a burst does not arrive");
	}
}

/* One burst all the way round; adds the cycles of each step. */
static void go_round(const struct link *link, struct rte_mbuf **packets, unsigned int burst, uint64_t *cycles)
{
	uint64_t at[STEPS + 1];

	at[0] = rte_rdtsc();
	send_all(link->frontend, packets, burst);
	at[1] = rte_rdtsc();
	receive_all(link->backend, packets, burst);
	at[2] = rte_rdtsc();
	send_all(link->backend, packets, burst);
	at[3] = rte_rdtsc();
	receive_all(link->frontend, packets, burst);
	at[4] = rte_rdtsc();
	for (int i = 0; i < STEPS; i++)
		cycles[i] += at[i + 1] - at[i];
}

static void run(unsigned int step, const char *options, unsigned int length, unsigned int burst, unsigned long rounds)
{
	struct link *link = link_for(options);
	struct rte_mbuf *packets[MAX_BURST];
	uint64_t cycles[STEPS] = {0}, sum = 0;

	if (rte_pktmbuf_alloc_bulk(shared, packets, burst) < 0)
		fail("the pool is empty");
	for (unsigned int i = 0; i < burst; i++) {
		char *data = rte_pktmbuf_append(packets[i], length);
		if (data == NULL)
			fail("packets of this length do not fit a buffer");
		memset(data, 0x5a, length);
	}
	for (unsigned long i = 0; i < rounds; i++)
		go_round(link, packets, burst, cycles);
	memset(cycles, 0, sizeof(cycles));
	long before = interruptions();
	for (unsigned long i = 0; i < rounds; i++)
		go_round(link, packets, burst, cycles);
	long interrupted = interruptions() - before;
	rte_pktmbuf_free_bulk(packets, burst);
	for (unsigned int i = 0; i < STEPS; i++)
		sum += step == STEPS || step == i ? cycles[i] : 0;
	printf("%.4f %ld\n", (double)sum / ((double)rounds * burst), interrupted);
}

int main(int argc, char **argv)
{
	char line[512], options[128];
	unsigned int step, length, burst;
	unsigned long rounds;

	if (rte_eal_init(argc, argv) < 0)
		fail("rte_eal_init failed");
	printf("ready %u\n", rte_lcore_count());
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) != NULL) {
		if (sscanf(line, "burst %u %127s %u %u %lu", &step, options, &length, &burst, &rounds) == 5 && step <= STEPS &&
				burst > 0 && burst <= MAX_BURST && rounds > 0)
			run(step, options, length, burst, rounds);
		else
			fail("unknown case");
		fflush(stdout);
	}
	for (unsigned int i = 0; i < link_count; i++) {
		rte_eth_dev_stop(links[i].frontend);
		rte_eth_dev_stop(links[i].backend);
	}
	rte_eal_cleanup();
	return 0;
}
