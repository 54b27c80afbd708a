/* The test guest: a virtio-blk driver and a workload that knows what every block must hold. Runs in ring 3 without an
 * operating system; start.S came before.
 *
 * Words on the command line:
 *
 *     ios=N     so many verified reads and writes, then a flush and a last look at every block (default: until a 'q' comes)
 *     depth=N   requests in flight (8)
 *     seed=N    of everything random
 *     pages=N   pages of memory that are stamped and checked all the time
 *     poll      look for completions instead of sleeping until an interrupt
 *     boots=N   count boots on the disk, reset until there have been N
 *     idle      say hello, then sleep for ever
 *     probe     power off at once
 *
 * Says "first" after the first completed I/O, "@ios N" now and then, "capacity N" when the disk's size changes, in the end
 * "PASS ..." or at once "FAIL ...", and powers off. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COM1 0x3f8
#define BLOCK_BYTES 4096u
#define WORDS (BLOCK_BYTES / 8)
#define BLOCKS 4096u
#define RING 128u
#define DEPTH_MAX 32u
#define PAGES_AT ((uint8_t *)0x2000000)
#define REPORT_EVERY 20000u
#define LISTEN_EVERY 512u

extern volatile uint32_t irqs, config_irqs;

/* ---- ports, text ---- */

static inline void outb(uint16_t port, uint8_t value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
static inline void outl(uint16_t port, uint32_t value) { __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }
static inline uint8_t inb(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}
static inline uint32_t inl(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static void say(const char *text)
{
	while (*text)
		outb(COM1, (uint8_t)*text++);
}

static void say_number(const char *text, uint64_t value, const char *end)
{
	char digits[24];
	int at = 23;

	digits[at] = 0;
	do
		digits[--at] = (char)('0' + value % 10);
	while (value /= 10);
	say(text);
	say(digits + at);
	say(end);
}

static _Noreturn void power_off(void)
{
	for (;;)
		outb(0x600, 5 << 2 | 0x20);
}

static _Noreturn void fail(const char *why, uint64_t detail)
{
	say("FAIL ");
	say_number(why, detail, "\n");
	power_off();
}

void *memset(void *at, int value, size_t bytes)
{
	void *start = at;

	__asm__ volatile("rep stosb" : "+D"(at), "+c"(bytes) : "a"(value) : "memory");
	return start;
}

/* ---- the command line ---- */

static const char *cmdline;

/* What stands behind "key" on the command line; NULL: nothing does. */
static const char *find_word(const char *key)
{
	for (const char *at = cmdline; *at; at++) {
		const char *k = key, *a = at;

		while (*k && *k == *a)
			k++, a++;
		if (!*k && (at == cmdline || at[-1] == ' '))
			return a;
	}
	return NULL;
}

static uint64_t number(const char *key, uint64_t otherwise)
{
	const char *at = find_word(key);
	uint64_t value = 0;

	if (!at)
		return otherwise;
	while (*at >= '0' && *at <= '9')
		value = value * 10 + (uint64_t)(*at++ - '0');
	return value;
}

/* ---- PCI ---- */

static uint32_t pci_read(uint32_t slot, uint32_t off)
{
	outl(0xcf8, 0x80000000u | slot << 11 | (off & 0xfc));
	return inl(0xcfc);
}

static void pci_write(uint32_t slot, uint32_t off, uint32_t value)
{
	outl(0xcf8, 0x80000000u | slot << 11 | (off & 0xfc));
	outl(0xcfc, value);
}

static uint8_t pci_byte(uint32_t slot, uint32_t off)
{
	return (uint8_t)(pci_read(slot, off) >> (off % 4 * 8));
}

/* ---- the virtio-blk device ---- */

struct common {
	volatile uint32_t device_feature_select, device_feature, driver_feature_select, driver_feature;
	volatile uint16_t config_vector, num_queues;
	volatile uint8_t status, generation;
	volatile uint16_t queue_select, queue_size, queue_vector, queue_enable, queue_notify_off;
	volatile uint32_t desc_lo, desc_hi, avail_lo, avail_hi, used_lo, used_hi;
};

struct desc { uint64_t addr; uint32_t len; uint16_t flags, next; };
struct avail { uint16_t flags; volatile uint16_t idx; uint16_t ring[RING]; };
struct used { uint16_t flags; volatile uint16_t idx; volatile struct { uint32_t id, len; } ring[RING]; };
struct header { uint32_t type, reserved; uint64_t sector; };

static struct common *common;
static volatile uint64_t *capacity;
static volatile uint16_t *doorbell;
static struct desc desc[RING] __attribute__((aligned(4096)));
static struct avail avail __attribute__((aligned(4096)));
static struct used used __attribute__((aligned(4096)));
static uint16_t used_seen;

struct slot {
	bool busy, write;
	uint32_t block;
	struct header header;
	volatile uint8_t status;
	uint64_t words[WORDS] __attribute__((aligned(4096)));
};

static struct slot slots[DEPTH_MAX] __attribute__((aligned(4096)));

static void map_capabilities(uint32_t slot, uint64_t bar)
{
	for (uint8_t at = pci_byte(slot, 0x34); at; at = pci_byte(slot, at + 1u)) {
		uint64_t off = bar + pci_read(slot, at + 8u);

		if (pci_byte(slot, at) == 0x11)
			pci_write(slot, at, pci_read(slot, at) | 0x80000000u); /* MSI-X on */
		if (pci_byte(slot, at) != 0x09)
			continue;
		switch (pci_byte(slot, at + 3u)) {
		case 1: common = (struct common *)off; break;
		case 2: doorbell = (volatile uint16_t *)off; break;
		case 4: capacity = (volatile uint64_t *)off; break;
		}
	}
}

static void set_vectors(uint64_t bar)
{
	volatile uint32_t *table = (volatile uint32_t *)(bar + 0x8000);

	for (uint32_t v = 0; v < 2; v++) {
		table[4 * v] = 0xfee00000;
		table[4 * v + 1] = 0;
		table[4 * v + 2] = 0x40 + v;
		table[4 * v + 3] = 0;
	}
}

static void set_queue(void)
{
	common->queue_select = 0;
	common->queue_size = RING;
	common->queue_vector = 0;
	common->desc_lo = (uint32_t)(uintptr_t)desc;
	common->desc_hi = 0;
	common->avail_lo = (uint32_t)(uintptr_t)&avail;
	common->avail_hi = 0;
	common->used_lo = (uint32_t)(uintptr_t)&used;
	common->used_hi = 0;
	common->queue_enable = 1;
	if (common->queue_vector != 0)
		fail("no vector ", common->queue_vector);
}

static void find_disk(void)
{
	uint32_t slot = 1;

	while (slot < 32 && pci_read(slot, 0) != 0x10421af4)
		slot++;
	if (slot == 32)
		fail("no disk in slot ", slot);
	pci_write(slot, 4, pci_read(slot, 4) | 6);
	map_capabilities(slot, pci_read(slot, 0x10) & ~0xfu);
	set_vectors(pci_read(slot, 0x10) & ~0xfu);
	common->status = 0;
	common->status = 3;
	common->driver_feature_select = 1;
	common->driver_feature = 1;            /* VERSION_1 */
	common->driver_feature_select = 0;
	common->driver_feature = 1u << 9;      /* FLUSH */
	common->status = 11;
	if (!(common->status & 8))
		fail("features refused, status ", common->status);
	common->config_vector = 1;
	set_queue();
	common->status = 15;
}

/* ---- requests ---- */

enum { READ = 0, WRITE = 1, FLUSH = 4 };

static void submit(uint32_t index, uint32_t type, uint64_t sector)
{
	struct slot *s = &slots[index];
	struct desc *d = &desc[3 * index];
	uint16_t head = (uint16_t)(3 * index);

	s->header = (struct header){ type, 0, sector };
	s->status = 0xff;
	d[0] = (struct desc){ (uintptr_t)&s->header, sizeof(s->header), 1, (uint16_t)(head + (type == FLUSH ? 2 : 1)) };
	d[1] = (struct desc){ (uintptr_t)s->words, BLOCK_BYTES, type == READ ? 3 : 1, (uint16_t)(head + 2) };
	d[2] = (struct desc){ (uintptr_t)&s->status, 1, 2, 0 };
	s->busy = true;
	avail.ring[avail.idx % RING] = head;
	__asm__ volatile("" ::: "memory");
	avail.idx++;
	__asm__ volatile("mfence" ::: "memory");
	*doorbell = 0;
}

static bool sleeps;
static uint64_t done_count;

/* Waits for one completion; returns its slot. */
static uint32_t wait_one(void)
{
	uint32_t index;

	while (used.idx == used_seen) {
		uint32_t seen = irqs;

		if (used.idx == used_seen && sleeps)
			__asm__ volatile("ud2" : : "a"(seen) : "memory");
	}
	__asm__ volatile("" ::: "memory");
	index = used.ring[used_seen++ % RING].id / 3;
	if (index >= DEPTH_MAX || !slots[index].busy)
		fail("completed what is not in flight: ", index);
	if (slots[index].status != 0)
		fail("I/O error, status ", slots[index].status);
	slots[index].busy = false;
	if (done_count++ == 0)
		say("first\n");
	return index;
}

static void do_one(uint32_t type, uint64_t sector)
{
	submit(0, type, sector);
	wait_one();
}

/* ---- the workload ---- */

static uint64_t seed, random_state;
static uint32_t generation[BLOCKS];    /* acknowledged; 0: never written, reads as zeroes */
static bool block_busy[BLOCKS];

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static uint64_t next_random(void)
{
	return mix(random_state += 0x9e3779b97f4a7c15u);
}

static uint64_t word_of(uint32_t block, uint32_t gen, uint32_t i)
{
	return gen ? mix(seed ^ ((uint64_t)block << 32 | gen)) + i * 0x9e3779b97f4a7c15u : 0;
}

static void start_io(uint32_t index)
{
	struct slot *s = &slots[index];

	do
		s->block = (uint32_t)(next_random() % BLOCKS);
	while (block_busy[s->block]);
	block_busy[s->block] = true;
	s->write = next_random() & 1;
	for (uint32_t i = 0; s->write && i < WORDS; i++)
		s->words[i] = word_of(s->block, generation[s->block] + 1, i);
	submit(index, s->write ? WRITE : READ, s->block * 8ull);
}

static void check_block(const struct slot *s, uint32_t block)
{
	for (uint32_t i = 0; i < WORDS; i++)
		if (s->words[i] != word_of(block, generation[block], i))
			fail("wrong content of block ", block);
}

static void end_io(uint32_t index)
{
	struct slot *s = &slots[index];

	block_busy[s->block] = false;
	if (s->write)
		generation[s->block]++;
	else
		check_block(s, s->block);
}

static uint64_t page_count, page_turn;

/* Each page holds its number and how often it was stamped, at its first and last word. */
static void touch_page(void)
{
	uint64_t page, turn, *first, *last, old;

	if (page_count == 0)
		return;
	page = page_turn % page_count;
	turn = page_turn++ / page_count;
	first = (uint64_t *)(PAGES_AT + page * 4096);
	last = first + 511;
	old = turn ? mix(page << 32 | turn) : 0;
	if (*first != old || *last != old)
		fail("wrong content of page ", page);
	*first = *last = mix(page << 32 | (turn + 1));
}

/* Kept in a vector register across everything. */
static void set_xmm(uint64_t value) { __asm__ volatile("movq %0, %%xmm15" : : "r"(value)); }
static uint64_t get_xmm(void)
{
	uint64_t value;

	__asm__ volatile("movq %%xmm15, %0" : "=r"(value));
	return value;
}

static bool told_to_quit(void)
{
	return (inb(COM1 + 5) & 1) && inb(COM1) == 'q';
}

static void look_around(uint64_t ios)
{
	static uint32_t config_seen;

	if (config_irqs != config_seen) {
		config_seen = config_irqs;
		say_number("capacity ", *capacity, "\n");
	}
	if (ios % REPORT_EVERY == 0)
		say_number("@ios ", ios, "\n");
	if (get_xmm() != seed)
		fail("a vector register has changed at ", ios);
}

static void run_load(uint64_t ios, uint32_t depth)
{
	uint64_t started = 0, ended = 0;
	bool quit = false;

	while (started < depth && (!ios || started < ios)) {
		start_io((uint32_t)started);
		started++;
	}
	while (ended < started) {
		uint32_t index = wait_one();

		end_io(index);
		ended++;
		touch_page();
		look_around(ended);
		if (!ios && ended % LISTEN_EVERY == 0 && told_to_quit())
			quit = true;
		if (!quit && (!ios || started < ios)) {
			start_io(index);
			started++;
		}
	}
	do_one(FLUSH, 0);
	for (uint32_t block = 0; block < BLOCKS; block++) {
		do_one(READ, block * 8ull);
		check_block(&slots[0], block);
	}
	say_number("PASS ios ", ended, "");
	say_number(" irqs ", irqs, "\n");
}

/* Block 0 counts boots: a reset must leave the disk alone and everything else as at power on. */
static void count_boots(uint64_t boots)
{
	do_one(READ, 0);
	slots[0].words[0]++;
	do_one(WRITE, 0);
	do_one(FLUSH, 0);
	if (slots[0].words[0] < boots)
		for (;;)
			outb(0x602, 1);
	say_number("PASS boots ", slots[0].words[0], "\n");
}

void main(const uint8_t *boot_params)
{
	uint64_t depth;

	cmdline = (const char *)(uintptr_t)*(const uint32_t *)(boot_params + 0x228);
	seed = random_state = number("seed=", 1);
	sleeps = !find_word("poll");
	set_xmm(seed);
	page_count = number("pages=", 0);
	depth = number("depth=", 8);
	if (find_word("probe"))
		power_off();
	if (find_word("idle")) {
		say("idle\n");
		for (;;)
			__asm__ volatile("ud2" : : "a"(irqs) : "memory");
	}
	find_disk();
	if (number("boots=", 0))
		count_boots(number("boots=", 0));
	else
		run_load(number("ios=", 0), depth < DEPTH_MAX ? (uint32_t)depth : DEPTH_MAX);
	power_off();
}
