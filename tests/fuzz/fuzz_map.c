/* Map nodes, liveness tables and the catalog's objects of volumes: look-ups, merges, checkpoints. All checksums
 * are mended: see image.h. */
#include "tests/fuzz/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };

	image_fuzz(IMAGE_NODE | IMAGE_LIVE | IMAGE_VOLUME_OBJECT, &in);
	return 0;
}
