package storetest

import (
	"bytes"
	"errors"
	"strconv"
	"sync"
	"testing"

	"sluice/routing"
)

// shelves: what is put on one is there, apart from other shelves and the routes.
func shelves(t *testing.T, s routing.Store) {
	ctx := t.Context()
	sh, other := s.Shelf("things"), s.Shelf("other-things")
	if v, err := sh.Get(ctx, "a"); v != nil || err != nil {
		t.Errorf("Get of nothing = %q, %v", v, err)
	}
	binary := []byte{0, 0xff, '\n'}
	for key, value := range map[string][]byte{"a": binary, "b/2": []byte("two"), "empty": {}} {
		if err := sh.Put(ctx, key, value); err != nil {
			t.Fatal(err)
		}
	}
	given := []byte("given")
	if err := sh.Put(ctx, "b/2", given); err != nil {
		t.Fatal(err)
	}
	given[0] = 'x'
	all, err := s.Shelf("things").All(ctx)
	if err != nil || len(all) != 3 || !bytes.Equal(all["a"], binary) || string(all["b/2"]) != "given" || all["empty"] == nil {
		t.Errorf("All = %q, %v", all, err)
	}
	if v, err := sh.Get(ctx, "empty"); v == nil || len(v) != 0 || err != nil {
		t.Errorf("Get of an empty value = %v, %v, want it empty and not nil", v, err)
	}
	if all, err := other.All(ctx); len(all) != 0 || err != nil {
		t.Errorf("another shelf has %q, %v", all, err)
	}
	if err := sh.Put(ctx, "a", nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key        string
		old, value []byte
		want       bool
	}{
		{"a", binary, []byte("no"), false}, // it has been removed
		{"a", nil, []byte("1"), true},
		{"a", nil, []byte("2"), false},
		{"a", []byte("1"), []byte{}, true},
		{"a", nil, []byte("3"), false}, // empty is not nothing
		{"a", []byte{}, nil, true},
		{"a", nil, nil, true},
	} {
		if got, err := sh.Swap(ctx, c.key, c.old, c.value); got != c.want || err != nil {
			t.Errorf("Swap(%q, %q, %q) = %v, %v, want %v", c.key, c.old, c.value, got, err, c.want)
		}
	}
	if v, err := sh.Get(ctx, "a"); v != nil || err != nil {
		t.Errorf("after all that, Get = %q, %v, want nothing", v, err)
	}
	var field *routing.FieldError
	if err := sh.Put(ctx, "", []byte("x")); !errors.As(err, &field) {
		t.Errorf("Put without a key: %v, want a FieldError", err)
	}
	if err := sh.Put(ctx, "big", make([]byte, routing.MaxShelfValue+1)); !errors.As(err, &field) {
		t.Errorf("Put of too much: %v, want a FieldError", err)
	}
	if at := Load(t, s); at.Revision != 0 || len(at.Routes) != 0 {
		t.Errorf("the routing state is at %v with %d routes: a shelf is none of its business", at.Position, len(at.Routes))
	}
}

// shelfRace: of many who count on one key, nobody's step is lost.
func shelfRace(t *testing.T, s routing.Store) {
	const writers, steps = 4, 10
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			sh := s.Shelf("counters")
			for done := 0; done < steps; {
				old, err := sh.Get(t.Context(), "n")
				if err != nil {
					t.Error(err)
					return
				}
				n, _ := strconv.Atoi(string(old))
				swapped, err := sh.Swap(t.Context(), "n", old, strconv.AppendInt(nil, int64(n+1), 10))
				if err != nil {
					t.Error(err)
					return
				}
				if swapped {
					done++
				}
			}
		})
	}
	all.Wait()
	if v, err := s.Shelf("counters").Get(t.Context(), "n"); string(v) != strconv.Itoa(writers*steps) || err != nil {
		t.Errorf("counted to %s, %v, want %d", v, err, writers*steps)
	}
}
