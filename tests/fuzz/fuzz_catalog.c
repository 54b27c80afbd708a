/* The catalog and what stands above it: labels, checkpoint, journal records, objects of the pool. All checksums
 * are mended: see image.h. */
#include "tests/fuzz/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };

	image_fuzz(IMAGE_LABEL | IMAGE_CHECKPOINT | IMAGE_RECORD | IMAGE_POOL_OBJECT, &in);
	return 0;
}
