/* COM1: a 16550A whose far end is a pair of descriptors or a listening Unix socket with one client at a time. VM's lock. */
#ifndef VMM_SERIAL_H
#define VMM_SERIAL_H

#include "vmm-glue/bus.h"
#include "vmm-glue/events.h"
#include "vmm-glue/kvm.h"

#define SERIAL_RX_BYTES 64u
#define SERIAL_TX_BYTES 65536u

struct serial_state {
	uint8_t ier, lcr, mcr, scratch, divisor_low, divisor_high, fifo_on, tx_empty_pending;
	uint32_t rx_len;
	uint8_t rx[SERIAL_RX_BYTES];
};

struct serial {
	struct serial_state state;
	struct kvm *kvm;
	struct events *events;
	struct event in, out, listener;
	bool in_is_out; /* one socket for both */
	bool out_waits; /* for room at the far end */
	uint8_t *tx;    /* what the far end has not taken yet */
	uint32_t tx_len;
	bool line; /* wants to interrupt */
};

/* in_fd and out_fd: -1 for none; they stay the caller's. listen_fd: a listening socket instead, or -1. */
int serial_init(struct serial *serial, struct kvm *kvm, struct events *events, struct bus *ports, int in_fd, int out_fd,
		int listen_fd, struct err *err) __attribute__((warn_unused_result));
void serial_release(struct serial *serial);
/* As at power on. */
void serial_reset(struct serial *serial);
void serial_load(struct serial *serial, const struct serial_state *state);

#endif
