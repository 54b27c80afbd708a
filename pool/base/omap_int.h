/* What only omap.c's own test needs. */
#ifndef POOL_BASE_OMAP_INT_H
#define POOL_BASE_OMAP_INT_H

#include "pool/base/omap.h"

/* Whether everything holds that omap.c says always holds, by walking the whole map. */
bool omap_valid(const struct omap *map);

#endif
