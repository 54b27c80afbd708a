/* Address ranges and the device models behind them: one bus for ports, one for memory. VM's lock. */
#ifndef VMM_BUS_H
#define VMM_BUS_H

#include <stdbool.h>
#include <stdint.h>

#define BUS_RANGES_MAX 16

/* One access of the guest to a device: len_bytes is 1, 2, 4 or 8; off_bytes + len_bytes lies within the range. A read
 * finds all ones in data. */
typedef void (*bus_access)(void *dev, uint64_t off_bytes, void *data, uint32_t len_bytes, bool write);

struct bus_range {
	uint64_t base, len_bytes;
	bus_access access;
	void *dev;
};

struct bus {
	struct bus_range range[BUS_RANGES_MAX];
	uint32_t ranges;
};

/* There are as many ranges as this code has devices: too many, or overlapping ones, are a bug. */
void bus_add(struct bus *bus, uint64_t base, uint64_t len_bytes, bus_access access, void *dev);
/* What nobody answers for reads as all ones and swallows writes. */
void bus_do(struct bus *bus, uint64_t addr, void *data, uint32_t len_bytes, bool write);

#endif
