/* The serial port. See serial.h.
 *
 * Output is buffered while the far end does not take it, so that a terminal that stands still does not stop the guest; if it
 * stands still for long, output is dropped. The interrupt is an edge whenever a reason for one newly appears. */
#include "vmm-glue/serial.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/serial_reg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pool/base/list.h"
#include "vmm-glue/layout.h"

/* ---- the interrupt ---- */

static uint8_t interrupt_reason(const struct serial *s)
{
	if ((s->state.ier & UART_IER_RDI) && s->state.rx_len > 0)
		return UART_IIR_RDI;
	if ((s->state.ier & UART_IER_THRI) && s->state.tx_empty_pending)
		return UART_IIR_THRI;
	return UART_IIR_NO_INT;
}

static void update_line(struct serial *s)
{
	bool line = interrupt_reason(s) != UART_IIR_NO_INT;

	if (line && !s->line)
		kvm_pulse(s->kvm, PIN_COM1);
	s->line = line;
}

/* ---- output ---- */

static void set_out_waits(struct serial *s, bool waits)
{
	if (s->out_waits == waits)
		return;
	s->out_waits = waits;
	if (s->in_is_out)
		events_change(s->events, &s->in, EPOLLIN | (waits ? EPOLLOUT : 0));
	else if (!waits)
		events_remove(s->events, &s->out);
	else if (events_add(s->events, &s->out, EPOLLOUT) < 0)
		s->out_waits = false; /* tried again with the next byte */
}

static void drain(struct serial *s)
{
	while (s->tx_len > 0) {
		ssize_t put = write(s->out.fd, s->tx, s->tx_len);

		if (put < 0 && errno == EAGAIN) {
			set_out_waits(s, true);
			return;
		}
		if (put < 0)
			put = s->tx_len; /* nobody listens */
		s->tx_len -= (uint32_t)put;
		memmove(s->tx, s->tx + put, s->tx_len);
	}
	set_out_waits(s, false);
}

static void put_byte(struct serial *s, uint8_t byte)
{
	if (s->out.fd >= 0 && s->tx_len < SERIAL_TX_BYTES)
		s->tx[s->tx_len++] = byte;
	if (!s->out_waits)
		drain(s);
	s->state.tx_empty_pending = 1;
}

static void on_out(struct event *event, uint32_t epoll_events)
{
	drain(container_of(event, struct serial, out));
}

/* ---- input ---- */

static void close_client(struct serial *s)
{
	events_remove(s->events, &s->in);
	close(s->in.fd);
	s->in.fd = s->out.fd = -1;
	s->tx_len = 0;
	s->out_waits = false;
}

static void listen_to_input(struct serial *s)
{
	if (s->in.fd >= 0)
		events_change(s->events, &s->in,
			      (s->state.rx_len < SERIAL_RX_BYTES ? EPOLLIN : 0) |
				      (s->in_is_out && s->out_waits ? EPOLLOUT : 0));
}

static void on_in(struct event *event, uint32_t epoll_events)
{
	struct serial *s = container_of(event, struct serial, in);
	ssize_t got;

	if (s->in_is_out && (epoll_events & EPOLLOUT))
		drain(s);
	if (!(epoll_events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	got = read(s->in.fd, s->state.rx + s->state.rx_len, SERIAL_RX_BYTES - s->state.rx_len);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0 && s->in_is_out)
		close_client(s);
	else if (got <= 0)
		events_remove(s->events, event);
	else
		s->state.rx_len += (uint32_t)got;
	listen_to_input(s);
	update_line(s);
}

static uint8_t take_byte(struct serial *s)
{
	uint8_t byte = s->state.rx[0];

	if (s->state.rx_len == 0)
		return 0;
	memmove(s->state.rx, s->state.rx + 1, --s->state.rx_len);
	/* What is left interrupts anew. */
	s->line = false;
	if (s->state.rx_len == SERIAL_RX_BYTES - 1)
		listen_to_input(s);
	return byte;
}

/* A second client would only mix its words with the first one's. */
static void on_client(struct event *event, uint32_t epoll_events)
{
	struct serial *s = container_of(event, struct serial, listener);
	int fd = accept4(event->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	if (s->in.fd >= 0) {
		close(fd);
		return;
	}
	s->in.fd = s->out.fd = fd;
	if (events_add(s->events, &s->in, EPOLLIN) < 0)
		close_client(s);
}

/* ---- registers ---- */

static uint8_t read_register(struct serial *s, uint64_t reg)
{
	struct serial_state *st = &s->state;
	bool latch = st->lcr & UART_LCR_DLAB;
	uint8_t reason;

	switch (reg) {
	case UART_RX: return latch ? st->divisor_low : take_byte(s);
	case UART_IER: return latch ? st->divisor_high : st->ier;
	case UART_IIR:
		reason = interrupt_reason(s);
		if (reason == UART_IIR_THRI)
			st->tx_empty_pending = 0;
		return reason | (st->fifo_on ? 0xc0 : 0);
	case UART_LCR: return st->lcr;
	case UART_MCR: return st->mcr;
	case UART_LSR: return UART_LSR_TEMT | UART_LSR_THRE | (st->rx_len > 0 ? UART_LSR_DR : 0);
	case UART_MSR:
		if (st->mcr & UART_MCR_LOOP) /* a driver's probe wants to see its own signals */
			return (uint8_t)((st->mcr & UART_MCR_OUT1) << 4 | (st->mcr & UART_MCR_OUT2) << 4 |
					 (st->mcr & UART_MCR_RTS) << 3 | (st->mcr & UART_MCR_DTR) << 5);
		return UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS;
	default: return st->scratch;
	}
}

static void write_register(struct serial *s, uint64_t reg, uint8_t value)
{
	struct serial_state *st = &s->state;
	bool latch = st->lcr & UART_LCR_DLAB;

	switch (reg) {
	case UART_TX:
		if (latch)
			st->divisor_low = value;
		else if (!(st->mcr & UART_MCR_LOOP))
			put_byte(s, value);
		break;
	case UART_IER:
		if (latch) {
			st->divisor_high = value;
			break;
		}
		if ((value & UART_IER_THRI) && !(st->ier & UART_IER_THRI)) {
			st->tx_empty_pending = 1;
			s->line = false;
		}
		st->ier = value & 0x0f;
		break;
	case UART_FCR:
		st->fifo_on = value & UART_FCR_ENABLE_FIFO;
		if (value & UART_FCR_CLEAR_RCVR)
			st->rx_len = 0;
		listen_to_input(s);
		break;
	case UART_LCR: st->lcr = value; break;
	case UART_MCR: st->mcr = value; break;
	case UART_SCR: st->scratch = value; break;
	}
}

static void access_port(void *dev, uint64_t off_bytes, void *data, uint32_t len_bytes, bool write)
{
	struct serial *s = dev;
	uint8_t *byte = data;

	if (len_bytes != 1)
		return;
	if (write)
		write_register(s, off_bytes, *byte);
	else
		*byte = read_register(s, off_bytes);
	if (write && off_bytes == UART_TX)
		s->line = false;
	update_line(s);
}

/* ---- life ---- */

static int watch(struct serial *s, struct err *err)
{
	int rc = 0;

	if (s->listener.fd >= 0)
		rc = events_add(s->events, &s->listener, EPOLLIN);
	if (rc == 0 && s->in.fd >= 0)
		rc = events_add(s->events, &s->in, EPOLLIN);
	/* A plain file can always be read, and is at its end soon. */
	if (rc == -EPERM) {
		s->in.fd = -1;
		rc = 0;
	}
	return rc < 0 ? err_set(err, rc, "cannot watch the serial port: %s", strerror(-rc)) : 0;
}

int serial_init(struct serial *s, struct kvm *kvm, struct events *events, struct bus *ports, int in_fd, int out_fd,
		int listen_fd, struct err *err)
{
	*s = (struct serial){
		.kvm = kvm,
		.events = events,
		.in = { in_fd, on_in },
		.out = { out_fd, on_out },
		.listener = { listen_fd, on_client },
		.in_is_out = listen_fd >= 0,
		.tx = malloc(SERIAL_TX_BYTES),
	};
	if (!s->tx)
		return err_set(err, -ENOMEM, "no memory");
	if (out_fd >= 0)
		(void)fcntl(out_fd, F_SETFL, fcntl(out_fd, F_GETFL) | O_NONBLOCK);
	serial_reset(s);
	bus_add(ports, PORT_COM1, PORT_COM1_BYTES, access_port, s);
	return watch(s, err);
}

void serial_release(struct serial *s)
{
	if (!s->events)
		return;
	if (s->in_is_out && s->in.fd >= 0)
		close_client(s);
	events_remove(s->events, &s->in);
	events_remove(s->events, &s->listener);
	free(s->tx);
	s->tx = NULL;
}

void serial_reset(struct serial *s)
{
	s->state = (struct serial_state){ .mcr = UART_MCR_OUT2, .divisor_low = 12 };
	s->line = false;
}

void serial_load(struct serial *s, const struct serial_state *state)
{
	s->state = *state;
	if (s->state.rx_len > SERIAL_RX_BYTES)
		s->state.rx_len = SERIAL_RX_BYTES;
	/* An edge that was on its way may have been lost; one too many does no harm. */
	s->line = false;
	update_line(s);
}
