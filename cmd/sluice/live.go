package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/charmbracelet/x/term"

	"sluice/cmd/sluice/internal/block"
	adminv1 "sluice/proto/sluice/admin/v1"
	routingv1 "sluice/proto/sluice/routing/v1"
)

// liveChanges is how many of the last changes the live view shows.
const liveChanges = 8

// liveView is redrawn in place: how the gateway stands, the routes, and the last
// changes.
type liveView struct {
	block  *block.Block
	height func() int
	where  string
	model  string // empty for all

	routes   map[string]*routeEntry
	changes  []*routingv1.Change // newest first
	revision uint64
	store    *adminv1.StoreStatus
	trouble  string // with the gateway itself
}

func newLiveView(f *os.File, where, model string) *liveView {
	return &liveView{
		block:  block.New(f),
		where:  where,
		model:  model,
		routes: make(map[string]*routeEntry),
		height: func() int {
			_, height, err := term.GetSize(f.Fd())
			if err != nil || height < 1 {
				return 24 // a terminal that does not know is rarely lower
			}
			return height
		},
	}
}

func (v *liveView) show(resp *adminv1.WatchResponse) error {
	if v.trouble != "" { // the first answer after that is whole
		clear(v.routes)
		v.changes, v.trouble = nil, ""
	}
	for _, r := range resp.GetRoutes() {
		v.routes[r.GetModel()] = r
	}
	for _, model := range resp.GetDeleted() {
		delete(v.routes, model)
	}
	for _, c := range resp.GetChanges() {
		v.changes = append([]*routingv1.Change{c}, v.changes...)
	}
	v.changes = v.changes[:min(len(v.changes), liveChanges)]
	v.revision, v.store = resp.GetRevision(), resp.GetStore()
	v.draw()
	return nil
}

func (v *liveView) lost(err error) {
	v.trouble = err.Error()
	v.draw()
}

func (v *liveView) draw() { v.block.Draw(v.lines()) }

// lines are what is drawn: no more than fit the terminal.
func (v *liveView) lines() []string {
	head := []string{strong.Render(fmt.Sprintf("revision %d", v.revision)) + "  " + plural(len(v.routes), "model") + faint.Render("  "+v.where)}
	head = append(head, "store "+standing(v.store))
	for _, p := range v.store.GetProblems() {
		head = append(head, alarm.Render(visible(p, 500)))
	}
	if v.model != "" && len(v.routes) == 0 {
		head = append(head, noRouteYet(v.model))
	}
	if v.trouble != "" {
		head = append(head, alarm.Render(visible(v.trouble, 500)))
	}
	var tail []string
	if len(v.changes) > 0 {
		tail = append([]string{""}, historyTable(v.changes, "").lines()...)
	}
	var routes []string
	if len(v.routes) > 0 {
		var sorted []*routeEntry
		for _, model := range slices.Sorted(maps.Keys(v.routes)) {
			sorted = append(sorted, v.routes[model])
		}
		routes = append([]string{""}, routesTable(sorted).lines()...)
	}
	return fit(head, routes, tail, v.height()-1)
}

// fit cuts the routes, and then the changes, until all is at most so high.
func fit(head, routes, tail []string, height int) []string {
	if room := max(height-len(head), 0); len(tail) > room/2 && len(head)+len(routes)+len(tail) > height {
		tail = tail[:min(len(tail), max(room/2, room-len(routes)))]
	}
	if room := max(height-len(head)-len(tail), 0); len(routes) > room {
		cut := len(routes) - max(room-1, 0)
		routes = append(slices.Clip(routes[:max(room-1, 0)]), faint.Render(fmt.Sprintf("%s more", plural(cut, "line"))))
		routes = routes[:min(len(routes), room)]
	}
	lines := slices.Concat(head, routes, tail)
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return lines[:min(len(lines), max(height, 1))]
}
