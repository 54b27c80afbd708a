/* Inside of the exports: what every kind of export brings to export.c. */
#ifndef TARGETS_EXPORT_INT_H
#define TARGETS_EXPORT_INT_H

#include "targets/export.h"

/* A kind of export. To add one: 1 a file export_x.c with a const table of these and a start function, which makes a struct
 * around `struct export`; 2 its options and start function in export.h; 3 what tools/daemon_export.c says. */
struct export_ops {
	const char *kind; /* Required. "vhost-user-blk", ... */
	/* Required. As export_stop. Fiber of the pool's loop; waits. */
	void (*stop)(struct export *exp);
	/* Required. Fills in all of *info that export.c does not: kind and address. The same fiber; may wait. */
	void (*get_info)(struct export *exp, struct export_info *info);
};

/* Member of each kind's own struct. */
struct export
{
	const struct export_ops *ops; /* owner: the pool's loop */
	char *address;                /* the kind's to free */
	uint64_t logged_ns, unlogged; /* owner: the home loop */
};

/* After accept, or the making of a fiber, failed for lack of descriptors or memory. */
#define EXPORT_RETRY_NS 100000000ull

/* One line about the export for a person, in front of it the address. At most one a second; the rest is counted. Home
 * loop. */
void export_log(struct export *exp, struct loop *loop, const char *text);

#endif
