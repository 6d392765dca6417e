package redisstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/redis/go-redis/v9"

	"sluice/routing"
)

// Shelf returns the shelf of that name: one hash.
func (s *Store) Shelf(name string) routing.Shelf {
	routing.CheckShelfName(name)
	return &shelf{store: s, name: name, key: s.keys.shelf + name}
}

type shelf struct {
	store     *Store
	name, key string
}

// Get returns the value of a key.
func (sh *shelf) Get(ctx context.Context, key string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, UpdateTimeout)
	defer cancel()
	value, err := sh.get(ctx, sh.store.client, key)
	return value, sh.store.answered(err)
}

func (sh *shelf) get(ctx context.Context, c redis.Cmdable, key string) ([]byte, error) {
	values, err := c.HMGet(ctx, sh.key, key).Result()
	if err != nil {
		return nil, err
	}
	if text, ok := values[0].(string); ok {
		return []byte(text), nil
	}
	return nil, nil
}

// All returns every key with its value, page by page: one answer with all of them might
// outgrow what Redis sends.
func (sh *shelf) All(ctx context.Context) (map[string][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, UpdateTimeout)
	defer cancel()
	all := make(map[string][]byte)
	for cursor := uint64(0); ; {
		page, next, err := sh.store.client.HScan(ctx, sh.key, cursor, "", pageSize).Result()
		if err := sh.store.answered(err); err != nil {
			return nil, err
		}
		for i := 0; i+1 < len(page); i += 2 {
			all[page[i]] = []byte(page[i+1])
		}
		if next == 0 {
			return all, nil
		}
		cursor = next
	}
}

// Put sets the value of a key. It does not watch the shelf, so that gateways that write
// their own keys do not hinder each other; the limit may be passed by a few.
func (sh *shelf) Put(ctx context.Context, key string, value []byte) error {
	if err := routing.CheckShelfEntry(key, value); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, UpdateTimeout)
	defer cancel()
	client := sh.store.client
	if value == nil {
		return sh.store.answered(sh.unlessDone(client.HDel(ctx, sh.key, key).Err()))
	}
	now, err := sh.get(ctx, client, key)
	if err == nil && now == nil {
		err = sh.checkRoom(ctx, client)
	}
	if err == nil {
		err = sh.unlessDone(client.HSet(ctx, sh.key, key, value).Err())
	}
	return sh.store.answered(err)
}

// Swap sets the value of a key if it is old.
func (sh *shelf) Swap(ctx context.Context, key string, old, value []byte) (bool, error) {
	if err := routing.CheckShelfEntry(key, value); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, UpdateTimeout)
	defer cancel()
	for {
		swapped, err := sh.trySwap(ctx, key, old, value)
		if !errors.Is(err, redis.TxFailedErr) {
			return swapped, sh.store.answered(err)
		}
		if !pause(ctx) {
			return false, &routing.UnavailableError{Store: sh.store.name, Err: errOvertaken}
		}
	}
}

func (sh *shelf) trySwap(ctx context.Context, key string, old, value []byte) (swapped bool, err error) {
	err = sh.store.client.Watch(ctx, func(tx *redis.Tx) error {
		now, err := sh.get(ctx, tx, key)
		if err != nil || (now == nil) != (old == nil) || !bytes.Equal(now, old) {
			return err
		}
		if now == nil && value != nil {
			if err := sh.checkRoom(ctx, tx); err != nil {
				return err
			}
		}
		cmds, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
			if value == nil {
				p.HDel(ctx, sh.key, key)
			} else {
				p.HSet(ctx, sh.key, key, value)
			}
			return nil
		})
		if err != nil {
			return sh.unlessDone(reasonOf(cmds, err))
		}
		swapped = true
		return nil
	}, sh.key)
	if swapped {
		return true, nil // what giving back the connection says does not matter
	}
	return false, err
}

// unlessDone returns the error of a command that changes the shelf. Unless Redis has said no,
// or was never reached, it may have been done.
func (sh *shelf) unlessDone(err error) error {
	var op *net.OpError
	if err == nil || isAnswer(err) || errors.As(err, &op) && op.Op == "dial" {
		return err
	}
	return &routing.UnavailableError{Store: sh.store.name, Unknown: true, Err: err}
}

func (sh *shelf) checkRoom(ctx context.Context, c redis.Cmdable) error {
	n, err := c.HLen(ctx, sh.key).Result()
	if err != nil {
		return err
	}
	if n >= routing.MaxShelfKeys {
		return routing.FullShelf(sh.store.name, sh.name, fmt.Sprintf("%d keys", routing.MaxShelfKeys))
	}
	return nil
}
