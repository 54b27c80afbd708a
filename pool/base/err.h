/* Errors of the control path: a negative errno plus one complete message for a person.
 *
 * Every control-path function returns 0 or -errno and fills `struct err` only when it fails. Messages are
 * lower case, failure first, subject quoted, and say what to do where that is known:
 *     cannot add disk '/dev/sdb': it holds an ext4 file system (use --force to overwrite it)
 * The data path returns 0 or -errno and never formats text. */
#ifndef POOL_BASE_ERR_H
#define POOL_BASE_ERR_H

struct err {
	char msg[320];
};

/* Formats a message into err (which may be NULL) and returns code, so that callers write
 * `return err_set(err, -ENOENT, "no volume '%s'", name);`. code must be negative. */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "context: " in front of the message already in err; returns code. */
int err_prefix(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
