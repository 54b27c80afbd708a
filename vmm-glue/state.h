/* A whole VM to and from a stream. */
#ifndef VMM_STATE_H
#define VMM_STATE_H

#include "vmm-glue/stream.h"
#include "vmm-glue/vm.h"

/* ---- writing; the VM's lock is held where it says so ---- */

/* share_memory: the reader gets our memory itself, and no pages. */
int state_put_machine(const struct vm *vm, struct stream *stream, bool share_memory, struct err *err)
	__attribute__((warn_unused_result));
/* All of memory that has ever been used; without the lock, while the guest runs or not. */
int state_put_memory(struct vm *vm, struct stream *stream, struct err *err) __attribute__((warn_unused_result));
/* What was written since the last look, of which *pages tells; as above. */
int state_put_dirty(struct vm *vm, struct stream *stream, uint64_t *pages, struct err *err)
	__attribute__((warn_unused_result));
/* Everything else, and END. The VM is paused; with the lock. */
int state_put_devices(struct vm *vm, struct stream *stream, struct err *err) __attribute__((warn_unused_result));

/* ---- reading ---- */

/* The beginning: is it a machine like config's? *ram_fd: its memory, if that came along, or -1; the caller's. */
int state_get_machine(const struct vm_config *config, struct stream *stream, int *ram_fd, struct err *err)
	__attribute__((warn_unused_result));
/* The rest, into a machine without devices that never ran. Devices are added, and disks connected, when all is known to be
 * whole; after an error the machine is of no use and nothing else has changed. */
int state_load(struct vm *vm, struct stream *stream, struct err *err) __attribute__((warn_unused_result));

#endif
