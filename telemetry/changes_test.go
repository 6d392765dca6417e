package telemetry

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// While everything changes, some changes have a line, and one line says how many have none.
func TestChangesHaveLinesWithinLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		tel := New(Config{Logger: slog.New(slog.DiscardHandler)})
		c := NewChangeLog(slog.New(slog.NewTextHandler(&text, nil)), tel, "breakers")
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c.Run(ctx)
		}()
		for range lineBurst {
			c.Log(slog.LevelWarn, "breaker open", "version", "v7")
		}
		for range 20 {
			c.Log(slog.LevelWarn, "breaker open", "version", "v7")
		}
		other := c.Logger().With("model", "fraud").WithGroup("incident")
		for range 3 {
			other.Warn("breaker open", "version", "v7")
		}
		time.Sleep(suppressedEvery + time.Second)
		c.Log(slog.LevelInfo, "breaker closed")
		other.Info("over", "id", 1)
		stop()
		<-ended
		if n := strings.Count(text.String(), `level=WARN msg="breaker open" version=v7`); n != lineBurst {
			t.Errorf("%d lines, want %d", n, lineBurst)
		}
		if strings.Count(text.String(), "suppressed=") != 1 || !strings.Contains(text.String(), "suppressed=23") ||
			!strings.Contains(text.String(), "breakers changed without") || !strings.Contains(text.String(), "breaker closed") ||
			!strings.Contains(text.String(), "msg=over model=fraud incident.id=1") {
			t.Errorf("want one line that says 23, and lines again afterwards:\n%s", text.String()[max(0, text.Len()-500):])
		}
		if n := total(t, tel, "dropped", signalLogs, dropRate); n != 23 {
			t.Errorf("%d are counted, want 23", n)
		}
	})
}
