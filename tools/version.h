/* The version of poold and poolctl. */
#ifndef TOOLS_VERSION_H
#define TOOLS_VERSION_H

#define POOLD_VERSION "0.1.0"

#endif
