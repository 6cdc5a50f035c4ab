/* DPDK's side of `linecard bench`: the same loops as bench/src/{ring,mempool}.rs on rte_ring and rte_mempool.
 *
 * Built and started by `linecard bench` (cc, pkg-config libdpdk). Reads one case per line from standard input, runs it
 * once, and answers with a figure and the number of times that the kernel took a core away meanwhile:
 *
 *   ring MODE COUNT CORES ELEMENT ROUNDS    MODE sp mp rts hts; COUNT 0 = one by one; ELEMENT 8 or 16 bytes
 *                                           -> TSC cycles per element, summed over both sides
 *   contend MODE COUNT CORES ELEMENT ROUNDS both lcores enqueue and dequeue at the same time
 *                                           -> TSC cycles per element that went in and out, summed over both lcores
 *   pool KIND COUNT KEEP CORES ROUNDS       KIND raw (rte_mempool) or packet (rte_pktmbuf); COUNT 1 = one by one
 *                                           -> objects taken and put back, millions per second, all cores together
 *
 * The two-core cases run on the main lcore and the first worker.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_pause.h>
#include <rte_ring.h>
#include <rte_ring_elem.h>

#define RING_SIZE 4096
#define MAX_COUNT 512
#define POOL_SIZE 8191
#define DATA_ROOM 2048

/* What becomes of the elements is not for the compiler to know, here and on our side: programs do not know it either. */
#define HIDE(items) __asm__ volatile("" : : "r"(items) : "memory")

enum mode { SP, MP, RTS, HTS };

/* What a loop took on one thread. */
struct spent {
	uint64_t cycles;
	long interrupted;
};

static unsigned int arrived;

struct ring_job {
	struct rte_ring *ring;
	enum mode mode;
	unsigned int count, element;
	unsigned long rounds;
	struct spent spent;
};


static void fail(const char *what)
{
	fprintf(stderr, "dpdk_bench: %s\n", what);
	exit(1);
}

struct answer {
	double value;
	long interrupted;
};

static struct answer add(double value, const struct spent *here, const struct spent *there)
{
	return (struct answer){ value, here->interrupted + there->interrupted };
}

static void print(struct answer answer)
{
	printf("%.4f %ld\n", answer.value, answer.interrupted);
}

static long interruptions(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nivcsw : 0;
}

/* Both threads begin together. */
static void meet(unsigned int cores)
{
	__atomic_add_fetch(&arrived, 1, __ATOMIC_ACQ_REL);
	while (__atomic_load_n(&arrived, __ATOMIC_ACQUIRE) < cores)
		rte_pause();
}

static struct spent begin(unsigned int cores)
{
	struct spent spent = { .interrupted = interruptions() };

	meet(cores);
	spent.cycles = rte_rdtsc();
	return spent;
}

static struct spent end(struct spent begun)
{
	struct spent spent = { .cycles = rte_rdtsc() - begun.cycles };

	spent.interrupted = interruptions() - begun.interrupted;
	return spent;
}

static __rte_always_inline unsigned int put(struct rte_ring *r, enum mode m, unsigned int e, const void *from, unsigned int n)
{
	switch (m) {
	case SP: return rte_ring_sp_enqueue_bulk_elem(r, from, e, n, NULL);
	case MP: return rte_ring_mp_enqueue_bulk_elem(r, from, e, n, NULL);
	case RTS: return rte_ring_mp_rts_enqueue_bulk_elem(r, from, e, n, NULL);
	default: return rte_ring_mp_hts_enqueue_bulk_elem(r, from, e, n, NULL);
	}
}

static __rte_always_inline unsigned int take(struct rte_ring *r, enum mode m, unsigned int e, void *to, unsigned int n)
{
	switch (m) {
	case SP: return rte_ring_sc_dequeue_bulk_elem(r, to, e, n, NULL);
	case MP: return rte_ring_mc_dequeue_bulk_elem(r, to, e, n, NULL);
	case RTS: return rte_ring_mc_rts_dequeue_bulk_elem(r, to, e, n, NULL);
	default: return rte_ring_mc_hts_dequeue_bulk_elem(r, to, e, n, NULL);
	}
}

/* The loops, with mode and element size known to the compiler as in DPDK's own test. */
static __rte_always_inline void produce_as(struct ring_job *j, enum mode m, unsigned int e)
{
	uint64_t items[MAX_COUNT * 2] __rte_cache_aligned = {0};
	unsigned int n = j->count;
	struct rte_ring *r = j->ring;

	struct spent begun = begin(2);
	for (unsigned long i = 0; i < j->rounds; i++) {
		HIDE(items);
		while (put(r, m, e, items, n) == 0)
			rte_pause();
	}
	j->spent = end(begun);
}

static __rte_always_inline void consume_as(struct ring_job *j, enum mode m, unsigned int e)
{
	uint64_t items[MAX_COUNT * 2] __rte_cache_aligned = {0};
	unsigned int n = j->count;
	struct rte_ring *r = j->ring;

	struct spent begun = begin(2);
	for (unsigned long i = 0; i < j->rounds; i++) {
		while (take(r, m, e, items, n) == 0)
			rte_pause();
		HIDE(items);
	}
	j->spent = end(begun);
}

static __rte_always_inline void alone_as(struct ring_job *j, enum mode m, unsigned int e)
{
	uint64_t from[MAX_COUNT * 2] __rte_cache_aligned = {0}, to[MAX_COUNT * 2] __rte_cache_aligned = {0};
	unsigned int n = j->count;
	struct rte_ring *r = j->ring;
	struct spent begun = begin(1);

	for (unsigned long i = 0; i < j->rounds; i++) {
		HIDE(from);
		put(r, m, e, from, n);
		take(r, m, e, to, n);
		HIDE(to);
	}
	j->spent = end(begun);
}

/* Enqueues and dequeues in turn while another lcore does the same. */
static __rte_always_inline void both_as(struct ring_job *j, enum mode m, unsigned int e)
{
	uint64_t from[MAX_COUNT * 2] __rte_cache_aligned = {0}, to[MAX_COUNT * 2] __rte_cache_aligned = {0};
	unsigned int n = j->count;
	struct rte_ring *r = j->ring;
	struct spent begun = begin(2);

	for (unsigned long i = 0; i < j->rounds; i++) {
		HIDE(from);
		while (put(r, m, e, from, n) == 0)
			rte_pause();
		while (take(r, m, e, to, n) == 0)
			rte_pause();
		HIDE(to);
	}
	j->spent = end(begun);
}

/* One by one: `n` is the constant 1. */
static __rte_always_inline void single_as(struct ring_job *j, enum mode m, unsigned int e)
{
	uint64_t from[2] __rte_cache_aligned = {0}, to[2] __rte_cache_aligned = {0};
	struct rte_ring *r = j->ring;
	struct spent begun = begin(1);

	for (unsigned long i = 0; i < j->rounds; i++) {
		HIDE(from);
		put(r, m, e, from, 1);
		take(r, m, e, to, 1);
		HIDE(to);
	}
	j->spent = end(begun);
}

#define FOR_EACH_MODE(loop, job)                                              \
	do {                                                                  \
		struct ring_job *j_ = (job);                                  \
		int wide_ = j_->element == 16;                                \
		switch (j_->mode) {                                           \
		case SP: wide_ ? loop(j_, SP, 16) : loop(j_, SP, 8); break;   \
		case MP: wide_ ? loop(j_, MP, 16) : loop(j_, MP, 8); break;   \
		case RTS: wide_ ? loop(j_, RTS, 16) : loop(j_, RTS, 8); break; \
		case HTS: wide_ ? loop(j_, HTS, 16) : loop(j_, HTS, 8); break; \
		}                                                             \
	} while (0)

static int produce(void *job) { FOR_EACH_MODE(produce_as, job); return 0; }
static int consume(void *job) { FOR_EACH_MODE(consume_as, job); return 0; }
static int alone(void *job) { FOR_EACH_MODE(alone_as, job); return 0; }
static int single(void *job) { FOR_EACH_MODE(single_as, job); return 0; }
static int both(void *job) { FOR_EACH_MODE(both_as, job); return 0; }

/* Goes once around, so that no page of the ring is touched for the first time while measuring. */
static void touch(struct rte_ring *ring, unsigned int element)
{
	uint64_t items[2] = {0};

	for (int i = 0; i < RING_SIZE; i++) {
		rte_ring_enqueue_elem(ring, items, element);
		rte_ring_dequeue_elem(ring, items, element);
	}
}

static struct answer run_ring(enum mode mode, unsigned int count, unsigned int cores, unsigned int element, unsigned long rounds,
	int contended)
{
	static const unsigned int flags[] = {
		RING_F_SP_ENQ | RING_F_SC_DEQ, 0, RING_F_MP_RTS_ENQ | RING_F_MC_RTS_DEQ, RING_F_MP_HTS_ENQ | RING_F_MC_HTS_DEQ,
	};
	struct rte_ring *ring = rte_ring_create_elem("linecard", element, RING_SIZE, rte_socket_id(), flags[mode]);

	if (ring == NULL)
		fail("no memory for a ring");
	touch(ring, element);
	struct ring_job here = { ring, mode, count, element, rounds, {0} }, there = here;
	arrived = 0;
	if (contended) {
		rte_eal_remote_launch(both, &there, rte_get_next_lcore(-1, 1, 0));
		both(&here);
		rte_eal_mp_wait_lcore();
	} else if (cores == 2) {
		rte_eal_remote_launch(consume, &there, rte_get_next_lcore(-1, 1, 0));
		produce(&here);
		rte_eal_mp_wait_lcore();
	} else if (count == 0) {
		single(&here);
	} else {
		alone(&here);
	}
	rte_ring_free(ring);
	double elements = (double)rounds * (count ? count : 1) * (contended ? 2 : 1);
	return add((double)(here.spent.cycles + there.spent.cycles) / elements, &here.spent, &there.spent);
}

struct pool_job {
	struct rte_mempool *pool;
	int packets;
	unsigned int count, keep, cores;
	unsigned long rounds;
	struct spent spent;
};

/* Takes `keep` objects, `count` at a time, then gives all back, `count` at a time. */
static __rte_always_inline void cycle_as(struct pool_job *j, unsigned int n)
{
	void *kept[MAX_COUNT];
	struct rte_mempool *p = j->pool;
	unsigned int keep = j->keep, i;

	struct spent begun = begin(j->cores);
	for (unsigned long round = 0; round < j->rounds; round++) {
		for (i = 0; i < keep; i += n)
			if (rte_mempool_get_bulk(p, &kept[i], n) < 0)
				fail("pool is empty");
		for (i = 0; i < keep; i += n)
			rte_mempool_put_bulk(p, &kept[i], n);
	}
	j->spent = end(begun);
}

static void cycle_packets(struct pool_job *j)
{
	struct rte_mbuf *kept[MAX_COUNT];
	unsigned int n = j->count, keep = j->keep, i;

	struct spent begun = begin(j->cores);
	for (unsigned long round = 0; round < j->rounds; round++) {
		if (n == 1) {
			for (i = 0; i < keep; i++)
				if ((kept[i] = rte_pktmbuf_alloc(j->pool)) == NULL)
					fail("pool is empty");
			for (i = 0; i < keep; i++)
				rte_pktmbuf_free(kept[i]);
			continue;
		}
		for (i = 0; i < keep; i += n)
			if (rte_pktmbuf_alloc_bulk(j->pool, &kept[i], n) < 0)
				fail("pool is empty");
		for (i = 0; i < keep; i += n)
			rte_pktmbuf_free_bulk(&kept[i], n);
	}
	j->spent = end(begun);
}

/* DPDK's test lets the compiler know the common sizes. */
static int cycle(void *job)
{
	struct pool_job *j = job;

	if (j->packets)
		cycle_packets(j);
	else
		switch (j->count) {
		case 1: cycle_as(j, 1); break;
		case 4: cycle_as(j, 4); break;
		case 8: cycle_as(j, 8); break;
		case 32: cycle_as(j, 32); break;
		default: cycle_as(j, j->count);
		}
	return 0;
}

static struct answer run_pool(int packets, unsigned int count, unsigned int keep, unsigned int cores, unsigned long rounds)
{
	static struct rte_mempool *raw, *mbufs;

	if (raw == NULL)
		raw = rte_mempool_create("raw", POOL_SIZE, DATA_ROOM, RTE_MEMPOOL_CACHE_MAX_SIZE, 0, NULL, NULL, NULL, NULL,
			rte_socket_id(), 0);
	if (mbufs == NULL)
		mbufs = rte_pktmbuf_pool_create("mbufs", POOL_SIZE, RTE_MEMPOOL_CACHE_MAX_SIZE, 0,
			DATA_ROOM + RTE_PKTMBUF_HEADROOM, rte_socket_id());
	if (raw == NULL || mbufs == NULL)
		fail("no memory for a pool");
	struct pool_job here = { packets ? mbufs : raw, packets, count, keep, cores, rounds, {0} }, there = here;
	arrived = 0;
	if (cores == 2)
		rte_eal_remote_launch(cycle, &there, rte_get_next_lcore(-1, 1, 0));
	cycle(&here);
	rte_eal_mp_wait_lcore();
	double objects = (double)keep * rounds, mhz = (double)rte_get_tsc_hz() / 1e6;
	double rate = objects / here.spent.cycles * mhz;
	if (cores == 2)
		rate += objects / there.spent.cycles * mhz;
	return add(rate, &here.spent, &there.spent);
}

static int mode_of(const char *name)
{
	static const char *const names[] = { "sp", "mp", "rts", "hts" };

	for (int i = 0; i < 4; i++)
		if (strcmp(name, names[i]) == 0)
			return i;
	fail("unknown mode");
	return 0;
}

int main(int argc, char **argv)
{
	char line[256], word[16];
	unsigned int count, keep, cores, element;
	unsigned long rounds;

	if (rte_eal_init(argc, argv) < 0)
		fail("rte_eal_init failed");
	printf("ready %u\n", rte_lcore_count());
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) != NULL) {
		if (sscanf(line, "ring %15s %u %u %u %lu", word, &count, &cores, &element, &rounds) == 5 && count <= MAX_COUNT)
			print(run_ring(mode_of(word), count, cores, element, rounds, 0));
		else if (sscanf(line, "contend %15s %u %u %u %lu", word, &count, &cores, &element, &rounds) == 5 && count <= MAX_COUNT &&
				count != 0 && cores == 2)
			print(run_ring(mode_of(word), count, cores, element, rounds, 1));
		else if (sscanf(line, "pool %15s %u %u %u %lu", word, &count, &keep, &cores, &rounds) == 5 && count != 0 &&
				keep <= MAX_COUNT && keep % count == 0)
			print(run_pool(strcmp(word, "packet") == 0, count, keep, cores, rounds));
		else
			fail("unknown case");
		fflush(stdout);
	}
	rte_eal_cleanup();
	return 0;
}
