/* A small vhost-user-blk front end: what QEMU and a guest's driver do, in one process, for tests and measurement.
 *
 * A client has a guest side (memory regions, rings, requests in flight, the inflight region's descriptor) which lives
 * from vc_create to vc_destroy, and a session with one server which may be lost and made again:
 *
 *	vc_create -> vc_connect -> vc_start -> vc_submit/vc_kick/vc_reap -> vc_stop -> vc_disconnect -> vc_destroy
 *	                 ^------------- vc_disconnect (server gone) ----------'
 *
 * Everything a hostile test wants to bend is open in the structs: rings and regions are plain pointers, and each step
 * of vc_connect and vc_start is a function of its own. One thread uses a client at a time. Functions return 0 (or what
 * they say) or -errno, and leave a message in vc->error for a person. -EREMOTEIO: the server answered "failed".
 *
 * Addresses: gpa are guest-physical; the user addresses told to the server are gpa + VC_UVA_SHIFT, valid in no process,
 * and each region starts VC_FILE_OFFSET_BYTES into its file, so a server that mixes these up is found out.
 * Regions are adjacent in gpa, each a file of its own: a buffer may cross from one to the next. */
#ifndef TESTS_CLIENT_VHOST_CLIENT_H
#define TESTS_CLIENT_VHOST_CLIENT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "tests/client/vhost_wire.h"

#define VC_QUEUES_MAX 16
#define VC_REGIONS_MAX 32
#define VC_SEGS_MAX 256
#define VC_GPA_BASE 0x100000000ull
#define VC_UVA_SHIFT 0x7e0000000000ull
#define VC_FILE_OFFSET_BYTES 0x10000ull

/* Configuration space up to and including write zeroes; some servers refuse to give more. */
#define VC_CONFIG_BYTES offsetof(struct virtio_blk_config, max_secure_erase_sectors)

#define VC_BIT(n) (1ull << (n))

/* Statuses beside VIRTIO_BLK_S_*: what a status byte holds before the server wrote it. */
#define VC_STATUS_UNWRITTEN 0xee

struct vc_options {
	const char *path;
	uint64_t features; /* wanted; what is not offered is dropped */
	uint64_t protocol; /* wanted; what is not offered is dropped */
	unsigned queues;
	unsigned ring_size;
	unsigned regions;
	uint64_t region_bytes;
	bool mem_slots;      /* share memory by ADD_MEM_REG instead of SET_MEM_TABLE */
	bool direct;         /* never use indirect tables, negotiated or not */
	bool interrupts;     /* want call notifications */
	int connect_wait_ms; /* keep trying to be accepted for so long */
	int reply_wait_ms;
};

struct vc_region {
	int fd;
	uint8_t *map;
	uint64_t gpa;
	uint64_t size_bytes;
	uint64_t taken_bytes; /* by vc_alloc */
	bool shared;          /* the server knows it (memory slots) */
};

/* What is private to the driver about the request whose first descriptor is this one. */
struct vc_slot {
	bool busy;
	uint16_t descs; /* taken from the ring */
	void *cookie;
};

struct vc_ring {
	unsigned index;
	uint16_t size;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	uint64_t desc_gpa;
	uint64_t avail_gpa;
	uint64_t used_gpa;
	uint64_t slots_gpa; /* VC_SLOT_BYTES for each descriptor: header, status, indirect table */
	struct vc_slot *slot;
	uint16_t *free_next;
	uint16_t free_head;
	uint16_t free_count;
	uint16_t avail_next; /* index the next request gets */
	uint16_t kicked;     /* avail index at the last kick decision */
	uint16_t used_seen;
	uint16_t event_set; /* used_seen when used_event was last pushed away (polling) */
	uint16_t base;      /* where the server is told to start */
	bool running;       /* told to run and not stopped orderly since */
	int kick_fd;
	int call_fd;
	int err_fd;
};

struct vc {
	struct vc_options options;
	int sock;         /* -1: no session */
	int backend_sock; /* our end of the server's own request channel, or -1 */
	uint64_t features_offered;
	uint64_t features;
	uint64_t protocol_offered;
	uint64_t protocol;
	uint64_t queues_max; /* what the server offers */
	struct virtio_blk_config config;
	unsigned config_changes;
	struct vc_region region[VC_REGIONS_MAX];
	unsigned regions;
	struct vc_ring ring[VC_QUEUES_MAX];
	int inflight_fd; /* -1: none yet */
	struct vu_inflight inflight;
	char error[200];
};

/* A buffer piece in guest memory. */
struct vc_seg {
	uint64_t gpa;
	uint32_t len_bytes;
};

struct vc_request {
	uint32_t type; /* VIRTIO_BLK_T_* */
	uint64_t sector;
	const struct vc_seg *seg;
	unsigned segs;
	bool direct;  /* this one without an indirect table */
	void *cookie; /* given back in struct vc_done */
};

struct vc_done {
	uint16_t head;
	uint32_t len_bytes; /* as the used ring says */
	uint8_t status;
	void *cookie;
};

/* ---- guest side ---- */

/* All features and protocol features this client knows, one queue of 128, one region of 16 MiB, 5 s waits. */
void vc_options_init(struct vc_options *options, const char *path);
/* Guest memory and empty rings, no session. NULL when memory is short. */
struct vc *vc_create(const struct vc_options *options);
void vc_destroy(struct vc *vc);

/* Memory that is never given back. Aborts when the region is full: sizes are the test's own choice. */
uint64_t vc_alloc_in(struct vc *vc, unsigned region, uint64_t size_bytes, uint64_t align_bytes);
uint64_t vc_alloc(struct vc *vc, uint64_t size_bytes); /* region 0, on a page */
/* Where [gpa, gpa + size) is in this process; it must lie in one region. */
void *vc_ptr(struct vc *vc, uint64_t gpa, uint64_t size_bytes);
/* One more region after the last one, not yet told to the server. Its number or -errno. */
int vc_region_create(struct vc *vc, uint64_t size_bytes);
/* The same for the memory of another client's region: what one of them writes the other reads. */
int vc_region_import(struct vc *vc, const struct vc_region *from);
struct vu_region vc_region_wire(const struct vc *vc, unsigned region);

/* Forgets all requests and indexes, as a driver resetting its device does. Only without a session. */
void vc_rings_reset(struct vc *vc);

/* ---- session ---- */

/* Connects and negotiates up to and including GET_CONFIG, trying again until connect_wait_ms have passed. */
int vc_connect(struct vc *vc);
/* Inflight region, SET_FEATURES, memory, rings, enable, and one kick for each ring. A ring that was not stopped orderly
 * starts from its used index, as QEMU does, and relies on the inflight region for the rest. */
int vc_start(struct vc *vc);
/* GET_VRING_BASE for each ring; ring->base gets the answers. */
int vc_stop(struct vc *vc);
void vc_disconnect(struct vc *vc);
/* vc_create, vc_connect, vc_start, or NULL with the message on stderr. */
struct vc *vc_open(const struct vc_options *options);
/* vc_stop if it still has a session, vc_disconnect, vc_destroy. */
void vc_close(struct vc *vc);

/* The steps, for tests that leave one out or bend it. */
int vc_connect_socket(struct vc *vc);
int vc_negotiate(struct vc *vc);
int vc_setup_inflight(struct vc *vc);
int vc_send_features(struct vc *vc);
int vc_share_memory(struct vc *vc);
int vc_region_share(struct vc *vc, unsigned region);
int vc_region_unshare(struct vc *vc, unsigned region);
int vc_ring_setup(struct vc *vc, unsigned queue); /* NUM, BASE, ADDR, ERR, CALL and KICK, with new eventfds */
int vc_ring_send_addr(struct vc *vc, unsigned queue);
int vc_ring_send_fd(struct vc *vc, uint32_t request, unsigned queue, int fd);
int vc_ring_enable(struct vc *vc, unsigned queue, bool on);
int vc_ring_stop(struct vc *vc, unsigned queue); /* the index, or -errno */

/* Sends a request and learns whether it worked: with REPLY_ACK by its answer, else only that it could be sent. */
int vc_call(struct vc *vc, uint32_t request, const void *payload, uint32_t size_bytes, const int *fd, unsigned fds);
/* Sends a request that has an answer of its own. The caller closes reply->fd. */
int vc_ask(struct vc *vc, uint32_t request, const void *payload, uint32_t size_bytes, struct vu_message *reply);
int vc_ask_u64(struct vc *vc, uint32_t request, uint64_t *value);
int vc_get_config(struct vc *vc, uint32_t off_bytes, void *into, uint32_t size_bytes);
int vc_set_config(struct vc *vc, uint32_t off_bytes, const void *from, uint32_t size_bytes, uint32_t flags);
/* Handles what the server sends on its own channel for up to wait_ms, until one message came. 0 or -errno. */
int vc_serve_backend(struct vc *vc, int wait_ms);

static inline bool vc_has(const struct vc *vc, unsigned feature)
{
	return (vc->features & VC_BIT(feature)) != 0;
}

static inline bool vc_has_protocol(const struct vc *vc, unsigned feature)
{
	return (vc->protocol & VC_BIT(feature)) != 0;
}

/* ---- rings and requests (vhost_ring.c) ---- */

/* Lays out a ring in region 0 and fills in vc->ring[index]. */
void vc_ring_create(struct vc *vc, unsigned index, uint16_t size);
void vc_ring_reset(struct vc_ring *ring);
void vc_ring_free(struct vc_ring *ring);

/* Puts a request into the ring without publishing it. Its head descriptor, or -EAGAIN when the ring is full. */
int vc_submit(struct vc *vc, unsigned queue, const struct vc_request *request);
void vc_publish(struct vc_ring *ring);       /* moves avail->idx */
void vc_notify(struct vc_ring *ring);        /* writes the kick eventfd */
void vc_kick(struct vc *vc, unsigned queue); /* publishes, and notifies if the server wants it */
/* Takes one completion: 1, 0 if there is none, -EPROTO if the server completed what is not in flight. */
int vc_reap(struct vc *vc, unsigned queue, struct vc_done *done);
/* Polls for one completion: 0, -ETIMEDOUT, -EPIPE (server closed) or -EPROTO. */
int vc_wait(struct vc *vc, unsigned queue, struct vc_done *done, int wait_ms);
/* Asks for a call after `ahead` more completions than seen (event index), or turns calls on (without it). */
void vc_want_call(struct vc *vc, unsigned queue, uint16_t ahead);
/* Reads the call eventfd: the number of calls since the last look, 0 after wait_ms without one. */
uint64_t vc_calls(struct vc_ring *ring, int wait_ms);

/* One request from submit to completion. The status byte, or -errno. */
int vc_do(struct vc *vc, unsigned queue, const struct vc_request *request);
int vc_io(struct vc *vc, unsigned queue, uint32_t type, uint64_t sector, uint64_t gpa, uint32_t len_bytes);
int vc_flush(struct vc *vc, unsigned queue);
/* DISCARD or WRITE_ZEROES with a list of ranges. */
int vc_ranges(struct vc *vc, unsigned queue, uint32_t type, const struct virtio_blk_discard_write_zeroes *range,
	      unsigned ranges);

/* Where the parts of the request with this head descriptor are. */
struct virtio_blk_outhdr *vc_slot_header(struct vc *vc, const struct vc_ring *ring, uint16_t head);
uint8_t *vc_slot_status(struct vc *vc, const struct vc_ring *ring, uint16_t head);
struct vring_desc *vc_slot_table(struct vc *vc, const struct vc_ring *ring, uint16_t head);
uint64_t vc_slot_header_gpa(const struct vc_ring *ring, uint16_t head);
uint64_t vc_slot_status_gpa(const struct vc_ring *ring, uint16_t head);
uint64_t vc_slot_table_gpa(const struct vc_ring *ring, uint16_t head);

static inline uint16_t vc_used_idx(const struct vc_ring *ring)
{
	return __atomic_load_n(&ring->used->idx, __ATOMIC_SEQ_CST);
}

#endif
