package relay

import (
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// loops are threads that read connections. A loop waits in one system call for all
// of its connections, handles whatever has arrived on any of them, and then writes once for
// all. With a goroutine per connection, Go's scheduler switches between them and wakes
// threads for them, and each flushes by itself: a fifth of the CPU of a call.
//
// Fewer loops batch more, so there are fewer of them than cores; and a thread that waits in a system
// call may keep a processor from Go's other goroutines for a while. They start with the
// first connection.
type loops struct {
	mu      sync.Mutex
	all     []*loop
	stopped bool
	next    atomic.Uint32
}

// adopt takes a connection over; it returns nil, and has not touched it, if loops are for none or not
// for this kind, or if there is trouble: then a goroutine reads it.
func (ls *loops) adopt(nc net.Conn, r *Relay) (transport, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok || r.cfg.Loops < 1 {
		return nil, nil
	}
	l, err := ls.pick(r)
	if err != nil {
		return nil, err
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	// A descriptor of our own: Go's poller would wake threads for one that it knows.
	var fd int
	var dupErr error
	if err := raw.Control(func(f uintptr) { fd, dupErr = unix.FcntlInt(f, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, dupErr
	}
	if err := l.prepare(fd); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	_ = nc.Close() // the connection lives on in its copy
	return &polled{
		fd: fd, loop: l,
		ended: make(chan error, 1), gone: make(chan struct{}), writable: make(chan struct{}, 1),
	}, nil
}

// pick starts the loops, if need be, and returns the next one.
func (ls *loops) pick(r *Relay) (*loop, error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.stopped {
		return nil, errServing
	}
	for len(ls.all) < r.cfg.Loops {
		l, err := newLoop(r)
		if err != nil && len(ls.all) == 0 {
			return nil, err
		}
		if err != nil {
			break // those that run will do until there are descriptors again
		}
		ls.all = append(ls.all, l)
		go l.run()
	}
	return ls.all[ls.next.Add(1)%uint32(len(ls.all))], nil
}

// stop ends the loops, whose connections have ended.
func (ls *loops) stop() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.stopped = true
	for _, l := range ls.all {
		l.stop()
	}
	ls.all = nil
}

// loop is one of the threads.
type loop struct {
	relay *Relay
	epoll int
	wake  int // an eventfd that ends the loop
	done  chan struct{}

	mu    sync.Mutex
	conns map[int32]*polled // by descriptor

	// Of its goroutine: connections whose turn has ended early. No event tells of what has been
	// read of them already.
	early, resumed []*polled
}

func newLoop(r *Relay) (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wake)})
	}
	if err != nil {
		_ = unix.Close(wake)
		_ = unix.Close(epoll)
		return nil, err
	}
	return &loop{relay: r, epoll: epoll, wake: wake, done: make(chan struct{}), conns: make(map[int32]*polled)}, nil
}

func (l *loop) stop() {
	_, _ = unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // cannot fail: nobody has written before
	<-l.done
	_ = unix.Close(l.wake)
	_ = unix.Close(l.epoll)
}

// eventsAtOnce and bytesAtOnce are how many connections are handled, and how much of what
// they have sent, before what came of it is written.
const (
	eventsAtOnce = 128
	bytesAtOnce  = 256 << 10
)

// yieldEvery is how many rounds a loop goes on before it lets Go's other goroutines have its
// processor: with always something to read, it would keep it until it is forced.
const yieldEvery = 16

// run reads until the loop is stopped. Nothing that it calls may wait for anything, be it a full pipe
// behind the log: all connections of the loop would.
func (l *loop) run() {
	defer close(l.done)
	w := l.relay.newWorker()
	var events [eventsAtOnce]unix.EpollEvent
	for round := 0; ; round++ {
		if round%yieldEvery == 0 {
			runtime.Gosched()
		}
		wait := -1
		if len(l.early) > 0 {
			wait = 0
		}
		n, err := unix.EpollWait(l.epoll, events[:], wait)
		if err != nil && err != unix.EINTR {
			panic("relay: epoll: " + err.Error()) // its descriptor is not one any more: a bug
		}
		handled := 0
		for _, e := range events[:max(n, 0)] {
			if e.Fd == int32(l.wake) {
				return
			}
			l.mu.Lock()
			p := l.conns[e.Fd]
			l.mu.Unlock()
			if p == nil {
				continue // it has not been added yet
			}
			w.now = time.Now()
			if handled += p.event(w, e.Events); handled > bytesAtOnce {
				w.flush()
				handled = 0
			}
		}
		l.resumed, l.early = l.early, l.resumed[:0]
		for i, p := range l.resumed {
			l.resumed[i] = nil
			p.early = false
			w.now = time.Now()
			if handled += p.turn(w); handled > bytesAtOnce {
				w.flush()
				handled = 0
			}
		}
		w.flush()
	}
}

// watched is what a loop wants to know of every connection. It is told again as long as
// there is something to read, so that one read per event is enough and no read finds nothing.
const watched = unix.EPOLLIN | unix.EPOLLRDHUP

// prepare gives a descriptor its place, since that may fail. Until it is added, it is told of
// once at most, and that is passed over.
func (l *loop) prepare(fd int) error {
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLONESHOT, Fd: int32(fd)})
}

func (l *loop) add(p *polled, events uint32) error {
	l.mu.Lock()
	l.conns[int32(p.fd)] = p
	l.mu.Unlock()
	return l.watch(p, events)
}

// watch changes what the loop wants to know of a connection.
func (l *loop) watch(p *polled, events uint32) error {
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, p.fd, &unix.EpollEvent{Events: events, Fd: int32(p.fd)})
}

func (l *loop) remove(p *polled) {
	_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, p.fd, nil) // it may be closed already
	l.mu.Lock()
	delete(l.conns, int32(p.fd))
	l.mu.Unlock()
}

// polled is a connection that a loop reads. Its goroutine waits until it ends.
type polled struct {
	loop  *loop
	c     *conn
	tls   *tlsTransport // nil in plaintext
	early bool          // in the loop's list of those whose turn has ended early
	ended chan error    // from the loop, which has let go: why
	gone  chan struct{} // closed once nobody tells writable any more
	// writable is told by the loop when the writer has asked.
	writable chan struct{}

	gatherer // of the writer

	mu     sync.Mutex // guards the descriptor against being used when it is closed
	fd     int        // -1: closed
	served bool       // serve closes the descriptor, and nobody else does
	added  bool       // the loop watches it, or did
	waits  bool       // a writer has waited for room since before that
}

// protocolFault wraps what the peer has done wrong, which it is told, unlike what befell the
// connection itself.
type protocolFault struct{ error }

// serve has the loop read the connection and returns once it has ended. It owns w.
func (p *polled) serve(c *conn, w *worker) {
	p.c = c
	if err := p.start(w); err != nil {
		p.loop.remove(p)
		p.ended <- err
	} else {
		w.flush()
	}
	err := <-p.ended
	close(p.gone)
	w.now = time.Now()
	var fault protocolFault
	if errors.As(err, &fault) {
		c.die(w, fault.error)
	} else {
		c.lost(w, err)
	}
	w.flush()
	if c.rbuf != nil {
		c.dropBuf()
	}
	p.mu.Lock()
	p.closeLocked()
	p.mu.Unlock()
}

func (p *polled) start(w *worker) error {
	p.mu.Lock()
	p.served = p.fd >= 0
	p.mu.Unlock()
	if !p.served {
		return net.ErrClosed
	}
	if p.tls != nil {
		// What came with the end of the handshake was read then, and no event tells of it.
		if _, err := p.tls.unseal(p.c, w); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.added = true
	events := uint32(watched)
	if p.waits {
		events |= unix.EPOLLOUT
	}
	if err := p.loop.add(p, events); err != unix.ENOENT {
		return err
	}
	return nil // the loop, told of a reset unasked, has let go of it in between, and says why
}

// event is called by the loop; it returns how much was read.
func (p *polled) event(w *worker, events uint32) int {
	if events&unix.EPOLLOUT != 0 {
		_ = p.loop.watch(p, watched)
		select {
		case p.writable <- struct{}{}:
		default:
		}
		if events&^unix.EPOLLOUT == 0 {
			return 0
		}
	}
	if p.early {
		return 0 // it goes on after those that have not yet had a turn
	}
	return p.turn(w)
}

// turn reads what is there and handles it.
func (p *polled) turn(w *worker) int {
	n, err := p.receive(w)
	switch {
	case err == syscall.EAGAIN:
	case err != nil:
		p.loop.remove(p)
		p.ended <- err
	case p.tls != nil && p.tls.waits():
		p.early = true
		p.loop.early = append(p.loop.early, p)
	}
	return n
}

// receive reads once and handles what came; the error is EAGAIN if there was nothing.
func (p *polled) receive(w *worker) (int, error) {
	if p.tls != nil {
		return p.tls.receive(p, w)
	}
	c := p.c
	before := c.rend - c.rpos
	if err := c.readFrom(p.fd); err != nil {
		return 0, err
	}
	n := c.rend - c.rpos - before
	if err := c.ending(); err != nil {
		return n, err
	}
	if err := c.received(w); err != nil {
		return n, protocolFault{err}
	}
	c.restBuf()
	return n, nil
}

// lingerPause is how often a connection that no loop reads any more is looked at.
const lingerPause = 5 * time.Millisecond

// read implements transport for a connection that lingers: the loop has let go of it.
func (p *polled) read(c *conn) error {
	for {
		if err := c.readFrom(p.fd); err != syscall.EAGAIN {
			return err
		}
		time.Sleep(lingerPause)
	}
}

func (p *polled) tryWrite(pieces [][]byte) (int, bool, error) {
	p.begin(pieces)
	_, err := p.some()
	p.rest = nil // it may be used for something else
	return p.written, p.written < total(pieces), err
}

// some writes what the socket takes.
func (p *polled) some() (done bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd < 0 {
		return false, net.ErrClosed
	}
	done = p.gatherer.write(p.fd)
	return done, p.err
}

func (p *polled) write(pieces [][]byte) error {
	p.begin(pieces)
	defer func() { p.rest = nil }()
	for {
		if done, err := p.some(); done || err != nil {
			return err
		}
		if err := p.awaitRoom(); err != nil {
			return err
		}
	}
}

// awaitRoom waits until the socket takes more.
func (p *polled) awaitRoom() error {
	p.mu.Lock()
	err := net.ErrClosed
	switch {
	case p.fd < 0:
	case !p.added:
		p.waits, err = true, nil // the loop will be asked when it is added
	default:
		err = p.loop.watch(p, watched|unix.EPOLLOUT)
	}
	p.mu.Unlock()
	switch err {
	case nil:
		select {
		case <-p.writable:
			return nil
		case <-p.gone:
		}
	case unix.ENOENT:
		<-p.gone
	default:
		return err
	}
	// The loop has let go; what is still to be written, such as GOAWAY, has until the
	// connection no longer lingers.
	time.Sleep(lingerPause)
	return nil
}

func (p *polled) backlog() bool { return false }
func (p *polled) gathers() bool { return true }

func (p *polled) closeWrite() { p.shutdown(unix.SHUT_WR) }

// close ends the connection; the loop sees that, and its goroutine closes the descriptor.
func (p *polled) close() { p.shutdown(unix.SHUT_RDWR) }

func (p *polled) shutdown(how int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.fd < 0:
	case p.served:
		_ = unix.Shutdown(p.fd, how) // the connection is going away whatever this says
	default:
		p.closeLocked() // nobody else will
	}
}

// closeLocked closes the descriptor; p.mu is held.
func (p *polled) closeLocked() {
	if p.fd >= 0 {
		_ = unix.Close(p.fd)
		p.fd = -1
	}
}
