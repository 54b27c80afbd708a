/* Dispatch of accesses by address. See bus.h. */
#include "vmm-glue/bus.h"

#include <assert.h>
#include <string.h>

void bus_add(struct bus *bus, uint64_t base, uint64_t len_bytes, bus_access access, void *dev)
{
	assert(bus->ranges < BUS_RANGES_MAX);
	for (uint32_t i = 0; i < bus->ranges; i++)
		assert(base >= bus->range[i].base + bus->range[i].len_bytes || base + len_bytes <= bus->range[i].base);
	bus->range[bus->ranges++] = (struct bus_range){ base, len_bytes, access, dev };
}

void bus_do(struct bus *bus, uint64_t addr, void *data, uint32_t len_bytes, bool write)
{
	if (!write)
		memset(data, 0xff, len_bytes);
	for (uint32_t i = 0; i < bus->ranges; i++) {
		const struct bus_range *range = &bus->range[i];

		if (addr >= range->base && addr - range->base < range->len_bytes &&
		    len_bytes <= range->len_bytes - (addr - range->base)) {
			range->access(range->dev, addr - range->base, data, len_bytes, write);
			return;
		}
	}
}
