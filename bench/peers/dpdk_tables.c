/* DPDK's side of `linecard bench tables`: the lookups of bench/src/tables.rs on rte_hash and rte_lpm.
 *
 * Built and started by `linecard bench` (cc, pkg-config libdpdk). Reads one case per line from standard input, runs it
 * once, and answers with TSC cycles per lookup and the number of times that the kernel took the core away meanwhile:
 *
 *   hash COUNT BULK PASSES SUM    COUNT flows of 16 bytes; BULK 1 = one by one, or 32
 *   lpm COUNT BULK PASSES SUM     COUNT IPv4 routes
 *
 * SUM is the sum of what a pass finds on the other side. If it is another one here, the two do not measure the same, and
 * the program ends.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_hash.h>
#include <rte_lcore.h>
#include <rte_lpm.h>

#define ASKED (1u << 16)
#define QUESTIONS (UINT64_C(1) << 40)
#define BULK 32
#define TABLES 4

struct flow {
	uint32_t source, destination, ports, protocol;
};

static void fail(const char *what)
{
	fprintf(stderr, "dpdk_tables: %s\n", what);
	exit(1);
}

static long interruptions(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nivcsw : 0;
}

/* splitmix64 */
static uint64_t mix(uint64_t n)
{
	uint64_t z = (n + 1) * UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static struct flow flow(uint64_t n)
{
	uint64_t a = mix(2 * n), b = mix(2 * n + 1);

	return (struct flow){ a, a >> 32, b, b >> 32 };
}

static uint64_t asked(uint64_t question, uint64_t count)
{
	return mix(QUESTIONS + question) % count;
}

static uint32_t mask(unsigned int length)
{
	return UINT32_MAX << (32 - length);
}

static uint32_t route(uint64_t n, unsigned int *length)
{
	static const uint8_t lengths[16] = { 24, 24, 24, 24, 24, 24, 24, 24, 24, 23, 22, 22, 20, 19, 16, 28 };
	uint64_t random = mix(n);

	*length = lengths[random >> 60];
	return ((uint32_t)random % 0xe0000000u) & mask(*length);
}

struct hash_table {
	uint64_t count;
	struct rte_hash *hash;
	struct flow asked[ASKED];
};

static struct hash_table *hash_table(uint64_t count)
{
	static struct hash_table *tables[TABLES];
	int i = 0;

	while (i < TABLES && tables[i] != NULL && tables[i]->count != count)
		i++;
	if (i == TABLES)
		fail("too many tables");
	if (tables[i] != NULL)
		return tables[i];
	char name[32];
	snprintf(name, sizeof(name), "flows %" PRIu64, count);
	/* As full as the tables of the other side, whose buckets are a power of two. */
	struct rte_hash_parameters parameters = {
		.name = name, .entries = 2 * count, .key_len = sizeof(struct flow), .socket_id = rte_socket_id(),
	};
	struct hash_table *t = calloc(1, sizeof(*t));
	if (t == NULL || (t->hash = rte_hash_create(&parameters)) == NULL)
		fail("no memory for a hash table");
	t->count = count;
	for (uint64_t n = 0; n < count; n++) {
		struct flow key = flow(n);
		if (rte_hash_add_key_data(t->hash, &key, (void *)(uintptr_t)n) != 0)
			fail("a flow does not fit");
	}
	for (uint64_t q = 0; q < ASKED; q++)
		t->asked[q] = flow(asked(q, count));
	return tables[i] = t;
}

static uint64_t find_flows(const struct hash_table *t)
{
	uint64_t sum = 0;
	void *data;

	for (unsigned int q = 0; q < ASKED; q++)
		sum += rte_hash_lookup_data(t->hash, &t->asked[q], &data) < 0 ? UINT32_MAX : (uintptr_t)data;
	return sum;
}

static uint64_t find_flows_in_bulks(const struct hash_table *t)
{
	uint64_t sum = 0;

	for (unsigned int q = 0; q < ASKED; q += BULK) {
		const void *keys[BULK];
		void *data[BULK];
		uint64_t hits = 0;

		for (unsigned int i = 0; i < BULK; i++)
			keys[i] = &t->asked[q + i];
		rte_hash_lookup_bulk_data(t->hash, keys, BULK, &hits, data);
		for (unsigned int i = 0; i < BULK; i++)
			sum += hits >> i & 1 ? (uintptr_t)data[i] : UINT32_MAX;
	}
	return sum;
}

struct lpm_table {
	struct rte_lpm *lpm;
	uint32_t asked[ASKED];
};

static struct lpm_table *lpm_table(uint64_t count)
{
	static struct lpm_table *table;
	static uint64_t made;

	if (table != NULL && made == count)
		return table;
	if (table != NULL)
		fail("another number of routes");
	struct rte_lpm_config config = { .max_rules = count, .number_tbl8s = 1 << 13 };
	struct lpm_table *t = calloc(1, sizeof(*t));
	if (t == NULL || (t->lpm = rte_lpm_create("routes", rte_socket_id(), &config)) == NULL)
		fail("no memory for routes");
	for (uint64_t n = 0; n < count; n++) {
		unsigned int length;
		uint32_t address = route(n, &length);
		if (rte_lpm_add(t->lpm, address, length, n) != 0)
			fail("a route does not fit");
	}
	for (uint64_t q = 0; q < ASKED; q++) {
		unsigned int length;
		uint32_t address = route(asked(q, count), &length);
		t->asked[q] = address | ((uint32_t)mix(QUESTIONS * 2 + q) & ~mask(length));
	}
	made = count;
	return table = t;
}

static uint64_t find_routes(const struct lpm_table *t)
{
	uint64_t sum = 0;

	for (unsigned int q = 0; q < ASKED; q++) {
		uint32_t hop;
		sum += rte_lpm_lookup(t->lpm, t->asked[q], &hop) != 0 ? UINT32_MAX : hop;
	}
	return sum;
}

static uint64_t find_routes_in_bulks(const struct lpm_table *t)
{
	uint64_t sum = 0;

	for (unsigned int q = 0; q < ASKED; q += BULK) {
		uint32_t hops[BULK];

		rte_lpm_lookup_bulk(t->lpm, &t->asked[q], hops, BULK);
		for (unsigned int i = 0; i < BULK; i++)
			sum += hops[i] & RTE_LPM_LOOKUP_SUCCESS ? hops[i] & 0x00ffffff : UINT32_MAX;
	}
	return sum;
}

int main(int argc, char **argv)
{
	char line[256], kind[16];
	uint64_t count, sum, found = 0;
	unsigned int bulk, passes;

	if (rte_eal_init(argc, argv) < 0)
		fail("rte_eal_init failed");
	printf("ready %u\n", rte_lcore_count());
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) != NULL) {
		if (sscanf(line, "%15s %" SCNu64 " %u %u %" SCNu64, kind, &count, &bulk, &passes, &sum) != 5 || count == 0 ||
				(bulk != 1 && bulk != BULK) || passes == 0)
			fail("unknown case");
		int routes = strcmp(kind, "lpm") == 0;
		const struct hash_table *flows = routes ? NULL : hash_table(count);
		const struct lpm_table *lpm = routes ? lpm_table(count) : NULL;
		long before = interruptions();
		uint64_t start = rte_rdtsc();
		for (unsigned int i = 0; i < passes; i++) {
			if (routes)
				found = bulk == 1 ? find_routes(lpm) : find_routes_in_bulks(lpm);
			else
				found = bulk == 1 ? find_flows(flows) : find_flows_in_bulks(flows);
			if (found != sum)
				fail("something else was found than on the other side");
		}
		uint64_t cycles = rte_rdtsc() - start;
		printf("%.4f %ld\n", (double)cycles / ((double)passes * ASKED), interruptions() - before);
		fflush(stdout);
	}
	rte_eal_cleanup();
	return 0;
}
