/* The store of buffers: see nbd_buffers.h. A buffer's struct lies behind its data, in the same allocation. */
#include "targets/nbd_buffers.h"

#include <assert.h>

#include "pool/base/mem.h"

static uint32_t class_bytes(uint32_t class)
{
	return 4096u << (2 * class);
}

static_assert(NBD_BUFFER_BYTES_MAX == 4096u << (2 * (NBD_BUFFER_CLASSES - 1)), "the largest class");

static uint32_t class_of(size_t len_bytes)
{
	uint32_t class = 0;

	while (class_bytes(class) < len_bytes)
		class ++;
	assert(class < NBD_BUFFER_CLASSES);
	return class;
}

uint32_t nbd_buffer_size_bytes(size_t len_bytes)
{
	return class_bytes(class_of(len_bytes));
}

void nbd_buffers_init(struct nbd_buffers *store)
{
	for (int class = 0; class < NBD_BUFFER_CLASSES; class ++)
		list_init(&store->idle[class]);
	store->idle_bytes = 0;
}

void nbd_buffers_release(struct nbd_buffers *store)
{
	struct list *node;

	for (int class = 0; class < NBD_BUFFER_CLASSES; class ++) {
		while ((node = list_pop_front(&store->idle[class])))
			mem_free(list_entry(node, struct nbd_buffer, node)->data);
	}
	store->idle_bytes = 0;
}

static struct nbd_buffer *buffer_new(uint32_t class)
{
	uint32_t size_bytes = class_bytes(class);
	uint8_t *data = mem_alloc_aligned(MEM_PAGE_BYTES, size_bytes + sizeof(struct nbd_buffer));
	struct nbd_buffer *buffer = (struct nbd_buffer *)(data + size_bytes);

	if (!data)
		return NULL;
	*buffer = (struct nbd_buffer){ .data = data, .size_bytes = size_bytes, .class = class };
	return buffer;
}

struct nbd_buffer *nbd_buffer_get(struct nbd_buffers *store, size_t len_bytes)
{
	uint32_t class = class_of(len_bytes);
	struct list *node = list_pop_front(&store->idle[class]);
	struct nbd_buffer *buffer = node ? list_entry(node, struct nbd_buffer, node) : buffer_new(class);

	if (!buffer)
		return NULL;
	if (node)
		store->idle_bytes -= buffer->size_bytes;
	list_init(&buffer->node);
	buffer->refs = 1;
	return buffer;
}

void nbd_buffer_put(struct nbd_buffers *store, struct nbd_buffer *buffer)
{
	assert(buffer->refs > 0);
	if (--buffer->refs > 0)
		return;
	if (store->idle_bytes + buffer->size_bytes > NBD_BUFFERS_IDLE_BYTES_MAX) {
		mem_free(buffer->data);
		return;
	}
	list_push_front(&store->idle[buffer->class], &buffer->node);
	store->idle_bytes += buffer->size_bytes;
}
