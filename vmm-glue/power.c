/* Power off and reset. See power.h. */
#include "vmm-glue/power.h"

#include "vmm-glue/layout.h"
#include "vmm-glue/vm.h"

#define SLEEP_ENABLE 0x20
#define SLEEP_TYPE(value) (((value) >> 2) & 7)
#define I8042_COMMAND 4
#define I8042_PULSE_RESET 0xfe

static void power_access(void *dev, uint64_t off_bytes, void *data, uint32_t len_bytes, bool write)
{
	uint8_t *byte = data;

	if (!write)
		*byte = 0;
	else if (off_bytes == POWER_SLEEP_CONTROL && (*byte & SLEEP_ENABLE) &&
		 SLEEP_TYPE(*byte) == POWER_SLEEP_TYPE_OFF)
		vm_wish(dev, VM_WISH_OFF);
	else if (off_bytes == POWER_RESET && *byte == POWER_RESET_VALUE)
		vm_wish(dev, VM_WISH_RESET);
}

/* Status reads as "nothing waits", so that no driver loops. */
static void i8042_access(void *dev, uint64_t off_bytes, void *data, uint32_t len_bytes, bool write)
{
	uint8_t *byte = data;

	if (!write)
		*byte = 0;
	else if (off_bytes == I8042_COMMAND && *byte == I8042_PULSE_RESET)
		vm_wish(dev, VM_WISH_RESET);
}

void power_init(struct vm *vm)
{
	bus_add(&vm->ports, PORT_POWER, PORT_POWER_BYTES, power_access, vm);
	bus_add(&vm->ports, PORT_I8042, PORT_I8042_BYTES, i8042_access, vm);
}
