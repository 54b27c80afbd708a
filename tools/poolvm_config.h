/* poolvm's command line. */
#ifndef TOOLS_POOLVM_CONFIG_H
#define TOOLS_POOLVM_CONFIG_H

#include "vmm-glue/vm.h"

struct poolvm_config {
	struct vm_config vm;
	const char *kernel, *initrd, *serial; /* as given; NULL: not */
	const char *control;                  /* socket path; NULL: none */
	const char *incoming;                 /* address, or file, that the VM's state comes from; NULL: it boots */
	const char *restore;
	bool no_seccomp;
	bool show_help, show_version;
};

/* Reads options and opens the files they name. -EINVAL or another -errno and a message. What config points to lives as
 * long as argv. */
int poolvm_config_read(struct poolvm_config *config, int argc, char **argv, struct err *err)
	__attribute__((warn_unused_result));
void poolvm_config_print_options(void);

#endif
