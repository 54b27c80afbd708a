/* Saving a VM to a file, restoring it, and moving it to another process while it runs. */
#ifndef VMM_MIGRATE_H
#define VMM_MIGRATE_H

#include "vmm-glue/vm.h"

/* Begins to save to a file (the VM goes on afterwards) or to move to "unix:PATH" or "tcp:ADDRESS:PORT" (this process ends
 * when the other runs the VM). Progress and outcome are in vm->move. -EBUSY while one is under way. With the lock. */
int vm_save_begin(struct vm *vm, const char *path, struct err *err) __attribute__((warn_unused_result));
int vm_migrate_begin(struct vm *vm, const char *address, struct err *err) __attribute__((warn_unused_result));
/* Gives up, if the VM is still ours: -EALREADY if it is not. With the lock. */
int vm_move_cancel(struct vm *vm, struct err *err) __attribute__((warn_unused_result));
/* After VM_MOVE_UNKNOWN: the caller knows that the VM does not run at the destination. With the lock. */
int vm_take_back(struct vm *vm, struct err *err) __attribute__((warn_unused_result));
bool vm_is_moving(const struct vm *vm);
/* Waits for the thread of a move that is over, or makes it be over. Without the lock. */
void vm_move_join(struct vm *vm);

/* The other end: where a VM comes from. */
struct stream;
/* Waits for a connection at an address; or opens a file. The stream is to be closed in any case. */
int vm_incoming_accept(struct stream *stream, const char *address, struct err *err) __attribute__((warn_unused_result));
int vm_incoming_open(struct stream *stream, const char *path, struct err *err) __attribute__((warn_unused_result));
/* Makes the VM from the stream, with all devices, paused. vm_destroy in any case. */
int vm_incoming_load(struct vm *vm, const struct vm_config *config, struct stream *stream, struct err *err)
	__attribute__((warn_unused_result));
/* A migrated VM is ours from when this returns 0; a failure means that the source has it. */
int vm_incoming_take(struct stream *stream, struct err *err) __attribute__((warn_unused_result));
/* Tells the source that the VM runs here. */
void vm_incoming_running(struct stream *stream);

#endif
