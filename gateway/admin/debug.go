package admin

import (
	"bytes"
	_ "embed" // the page
	"html/template"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"sluice/breaker"
	"sluice/gateway"
	"sluice/routing"
	"sluice/telemetry"
)

//go:embed debug.html
var debugPage string

var debugTemplate = template.Must(template.New("debug").Funcs(template.FuncMap{
	"time": func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return t.UTC().Format(time.DateTime + " UTC")
	},
}).Parse(debugPage))

// shownRoutes is how many models the page shows at once.
const shownRoutes = 200

// debugData is what the page shows.
type debugData struct {
	Version   string
	Revision  uint64
	ChangedAt time.Time
	Models    int
	Uptime    time.Duration
	Ready     bool
	Problem   string
	Asked     string // model, or the beginning of its name
	Hidden    int    // routes that match and are not shown
	Routes    []debugRoute
	Failures  []telemetry.Failure
	Fallbacks []telemetry.Failure
}

type debugRoute struct{ Versions []debugVersion }

type debugVersion struct {
	*routing.Version
	breaker.VersionStatus
	Closed    bool
	Endpoints []debugEndpoint
}

type debugEndpoint struct {
	gateway.EndpointStatus
	Problem string    // in the words of sluice status; empty if there is none
	Since   time.Time // if that is known
}

// debugHandler serves a page for people and the profiles of the program. The command line is not among them: it
// may hold a password.
func (s *Service) debugHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/{$}", s.debug)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/cmdline", http.NotFound)
	return s.forViewers(mux)
}

// forViewers asks for a token, if there are any: as a bearer, or, for browsers, as the password of whatever user.
func (s *Service) forViewers(next http.Handler) http.Handler {
	if s.cfg.Tokens == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if _, password, ok := r.BasicAuth(); ok {
			token = password
		} else if !strings.EqualFold(scheme, "Bearer") {
			token = ""
		}
		if s.cfg.Tokens.Role(strings.TrimSpace(token)) == NoRole {
			w.Header().Add("WWW-Authenticate", "Bearer")
			w.Header().Add("WWW-Authenticate", `Basic realm="sluice", charset="UTF-8"`)
			http.Error(w, "got no token that is known here, want one as bearer, or as the password of any user", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Service) debug(w http.ResponseWriter, r *http.Request) {
	var page bytes.Buffer
	if err := debugTemplate.Execute(&page, s.debugData(r.FormValue("model"))); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	_, _ = page.WriteTo(w)
}

func (s *Service) debugData(asked string) *debugData {
	table, status := s.cfg.Router.Current(), s.cfg.Watcher.Status()
	d := &debugData{
		Version: s.cfg.Version, Revision: table.Revision(), ChangedAt: status.ChangedAt, Models: table.Len(),
		Uptime: time.Since(s.started).Round(time.Second), Ready: s.cfg.Gateway.IsReady(), Asked: asked,
	}
	if status.Err != nil {
		d.Problem = status.Err.Error()
	}
	if s.cfg.Failures != nil {
		d.Failures = s.cfg.Failures()
	}
	if s.cfg.Fallbacks != nil {
		d.Fallbacks = s.cfg.Fallbacks()
	}
	now := time.Now()
	for route := range table.Routes() {
		switch {
		case !strings.HasPrefix(route.Model, asked):
		case len(d.Routes) == shownRoutes:
			d.Hidden++
		default:
			d.Routes = append(d.Routes, s.debugRoute(route, now))
		}
	}
	return d
}

func (s *Service) debugRoute(route *routing.Route, now time.Time) (r debugRoute) {
	for _, v := range route.Versions {
		guard := s.cfg.Gateway.Guard(v)
		if guard == nil {
			continue // the gateway follows another table by now
		}
		dv := debugVersion{Version: v, VersionStatus: guard.Status(now)}
		dv.P95 = dv.P95.Round(10 * time.Microsecond)
		dv.Closed = dv.State == breaker.Closed
		for _, e := range s.cfg.Gateway.Endpoints(v) {
			de := debugEndpoint{EndpointStatus: e}
			if status := endpointStatus(e); !status.Healthy || e.Ejected {
				de.Problem = status.GetProblem()
				if status.Since != nil {
					de.Since = status.GetSince().AsTime()
				}
			}
			dv.Endpoints = append(dv.Endpoints, de)
		}
		r.Versions = append(r.Versions, dv)
	}
	return r
}
