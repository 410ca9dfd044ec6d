package ipam

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/meshkv/meshkv/node"
)

// runAsServer makes the test binary be one server: name, directory, mesh address, API
// address and seeds are its arguments.
const runAsServer = "MESHKV_TEST_IPAM_SERVER"

// patience bounds every wait of a test: it is reached only by a failure.
const patience = 50 * time.Second

var serverNames = []string{"s1", "s2", "s3"}

func TestMain(m *testing.M) {
	if os.Getenv(runAsServer) == "" {
		os.Exit(m.Run())
	}
	if err := serve(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serve runs a server and prints its addresses once it serves.
func serve(name, dir, bind, api, join string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c := node.Config{
		Name: name, DataDir: dir, Bind: bind, HTTP: api, Server: true, BootstrapServers: serverNames,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if join != "" {
		c.Join = strings.Split(join, ",")
	}
	n, err := node.Start(ctx, c)
	if err != nil {
		return err
	}
	fmt.Println(n.MeshAddr(), n.APIAddr())
	select {
	case <-ctx.Done():
	case <-n.Done():
		return n.Err()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return n.Stop(ctx)
}

// A server is a process that keeps its addresses and its directory over restarts.
type server struct {
	name, dir, bind, api string
	join                 []string
	cmd                  *exec.Cmd
	log                  *logBuffer
}

// start starts the process and returns when it serves.
func (s *server) start(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, s.name, s.dir, s.bind, s.api, strings.Join(s.join, ","))
	cmd.Env = []string{runAsServer + "=1", "GORACE=halt_on_error=1"}
	cmd.Stderr = s.log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.cmd = cmd
	timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer timer.Stop()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%s did not start: %v", s.name, err)
	}
	if _, err := fmt.Sscan(line, &s.bind, &s.api); err != nil {
		t.Fatalf("%s printed %q: %v", s.name, line, err)
	}
}

// kill ends the process without warning, and makes sure that this is how it ended.
func (s *server) kill(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatalf("kill %s: %v", s.name, err)
	}
	s.cmd.Wait() // the state tells more than the error
	if st, ok := s.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || st.Signal() != syscall.SIGKILL {
		t.Fatalf("%s was not killed: %v", s.name, s.cmd.ProcessState)
	}
}

// startServers starts three servers, which end with the test.
func startServers(t *testing.T) []*server {
	t.Helper()
	var servers []*server
	for _, name := range serverNames {
		s := &server{name: name, dir: t.TempDir(), bind: "127.0.0.1:0", api: "127.0.0.1:0", log: &logBuffer{}}
		for _, o := range servers {
			s.join = append(s.join, o.bind)
		}
		t.Cleanup(func() {
			if s.cmd != nil {
				s.cmd.Process.Kill() // an error means that it ended before
				s.cmd.Wait()
			}
			if t.Failed() {
				t.Logf("log of %s:\n%s", s.name, s.log)
			}
		})
		s.start(t)
		servers = append(servers, s)
	}
	for i, s := range servers { // for restarts
		s.join = []string{servers[(i+1)%3].bind, servers[(i+2)%3].bind}
	}
	return servers
}

// A logBuffer keeps the last of what processes write.
type logBuffer struct {
	mu  sync.Mutex // protects buf
	buf []byte
}

func (l *logBuffer) Write(b []byte) (int, error) {
	const limit = 32 << 10
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, b...)
	if over := len(l.buf) - limit; over > 0 {
		l.buf = bytes.Clone(l.buf[over:])
	}
	return len(b), nil
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.buf)
}
