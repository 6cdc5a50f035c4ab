/* DPDK's side of `linecard bench loopback --latency`: one packet at a time through the only port, as
 * bench/src/end/traffic.rs does it.
 *
 * Built and started by `linecard bench`. Arguments after `--`: descriptors per ring, bytes per packet. Speaks like a
 * testpmd: a prompt when it is ready, and after each order
 *
 *   port            opens the port
 *   ping COUNT GAP MOST
 *                   sends COUNT packets, or as many as it can in MOST milliseconds, each GAP nanoseconds after the one
 *                   before came back
 *                   -> {"offered":…,"received":…,"lost":…,"p50":…,…}, round trips in nanoseconds
 *   quit
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_pause.h>

#define PACKETS 16384
#define PATIENCE_MS 100
#define DATA_ROOM (2048 + RTE_PKTMBUF_HEADROOM)
#define BURST 64

static struct rte_mempool *pool;
static unsigned int ring_size, length;

static void fail(const char *what)
{
	fprintf(stderr, "dpdk_ping: error: %s\n", what);
	exit(1);
}

static void prompt(void)
{
	printf("testpmd> ");
	fflush(stdout);
}

static void open_port(void)
{
	struct rte_eth_conf conf = {0};

	if (rte_eth_dev_count_avail() == 0)
		fail("there is no port");
	if (rte_eth_dev_configure(0, 1, 1, &conf) < 0 ||
	    rte_eth_rx_queue_setup(0, 0, ring_size, rte_socket_id(), NULL, pool) < 0 ||
	    rte_eth_tx_queue_setup(0, 0, ring_size, rte_socket_id(), NULL) < 0 || rte_eth_dev_start(0) < 0)
		fail("the port does not start");
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Frees whatever comes; how many. */
static unsigned int receive(void)
{
	struct rte_mbuf *packets[BURST];
	unsigned int count = rte_eth_rx_burst(0, 0, packets, BURST);

	if (count > 0)
		rte_pktmbuf_free_bulk(packets, count);
	return count;
}

static uint64_t ns(uint64_t cycles)
{
	return (uint64_t)((double)cycles * 1e9 / (double)rte_get_tsc_hz());
}

static void ping(unsigned long count, unsigned long gap_ns, unsigned long most_ms)
{
	uint64_t *trips = calloc(count + 1, sizeof(*trips));
	uint64_t gap = (uint64_t)((double)gap_ns * (double)rte_get_tsc_hz() / 1e9);
	uint64_t patience = rte_get_tsc_hz() / 1000 * PATIENCE_MS;
	uint64_t most = rte_get_tsc_hz() / 1000 * most_ms;
	unsigned long back = 0, offered = 0;

	if (trips == NULL)
		fail("no memory for round trips");
	uint64_t start = rte_rdtsc();
	for (unsigned long i = 0; i < count && (i == 0 || rte_rdtsc() - start < most); i++) {
		offered++;
		uint64_t idle = rte_rdtsc();
		while (rte_rdtsc() - idle < gap)
			rte_pause();
		struct rte_mbuf *packet = rte_pktmbuf_alloc(pool);
		if (packet == NULL)
			fail("the pool is empty");
		char *data = rte_pktmbuf_append(packet, length);
		if (data == NULL)
			fail("packets of this length do not fit a buffer");
		memset(data, 0, length);
		data[0] = 2;
		memcpy(data + 46 < data + length - 8 ? data + 46 : data, &i, sizeof(i));
		struct rte_mbuf *packets[BURST];
		uint64_t sent = rte_rdtsc(), now;
		if (rte_eth_tx_burst(0, 0, &packet, 1) == 0) {
			rte_pktmbuf_free(packet);
			continue;
		}
		unsigned int got;
		do {
			got = rte_eth_rx_burst(0, 0, packets, BURST);
			now = rte_rdtsc();
		} while (got == 0 && now - sent <= patience);
		if (got == 0)
			continue;
		rte_pktmbuf_free_bulk(packets, got);
		trips[back++] = now - sent;
	}
	uint64_t spent = rte_rdtsc() - start;
	qsort(trips, back, sizeof(*trips), by_size);
#define AT(share) (back == 0 ? 0 : ns(trips[(size_t)((double)(back - 1) * (share))]))
	printf("{\"offered\":%lu,\"received\":%lu,\"lost\":%lu,\"duplicated\":0,\"reordered\":0,\"corrupted\":0,\"short\":0,\"nanos\":%lu,"
	       "\"in_time\":%lu,\"p50\":%lu,\"p90\":%lu,\"p99\":%lu,\"p999\":%lu,\"max\":%lu}\n",
	       offered, back, offered - back, ns(spent), back, AT(0.5), AT(0.9), AT(0.99), AT(0.999), AT(1.0));
	free(trips);
}

int main(int argc, char **argv)
{
	char line[256];
	unsigned long count, gap, most;
	int used = rte_eal_init(argc, argv);

	if (used < 0)
		fail("rte_eal_init failed");
	argc -= used;
	argv += used;
	if (argc != 3)
		fail("give the ring's size and the packets' length");
	ring_size = (unsigned int)atoi(argv[1]);
	length = (unsigned int)atoi(argv[2]);
	pool = rte_pktmbuf_pool_create("packets", PACKETS - 1, 256, 0, DATA_ROOM, rte_socket_id());
	if (pool == NULL)
		fail("no memory for packets");
	prompt();
	while (fgets(line, sizeof(line), stdin) != NULL) {
		if (strncmp(line, "quit", 4) == 0)
			break;
		if (strncmp(line, "port", 4) == 0)
			open_port();
		else if (sscanf(line, "ping %lu %lu %lu", &count, &gap, &most) == 3)
			ping(count, gap, most);
		else
			fail("an order is not understood");
		receive();
		prompt();
	}
	if (rte_eth_dev_count_avail() != 0)
		rte_eth_dev_stop(0);
	rte_eal_cleanup();
	return 0;
}
