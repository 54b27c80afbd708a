/* Recovery: batch headers and their data, from the checkpoint on and before it. All checksums
 * are mended: see image.h. */
#include "tests/fuzz/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };

	image_fuzz(IMAGE_BATCH | IMAGE_DATA, &in);
	return 0;
}
