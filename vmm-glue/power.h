/* How a guest switches itself off and resets: three ports of ACPI's reduced hardware, and the keyboard controller's old
 * reset line. VM's lock. */
#ifndef VMM_POWER_H
#define VMM_POWER_H

/* From PORT_POWER on. */
#define POWER_SLEEP_CONTROL 0
#define POWER_SLEEP_STATUS 1
#define POWER_RESET 2

#define POWER_SLEEP_TYPE_OFF 5
#define POWER_RESET_VALUE 1

struct vm;

void power_init(struct vm *vm);

#endif
