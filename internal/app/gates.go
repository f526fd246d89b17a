package app

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quickims/quickims/internal/admit"
)

// gates bound the connections of each listener by itself: clients of one do not take
// the places of another's.
type gates struct{ api, s3, nbd *admit.Gate }

func newGates(proxies admit.Proxies, log *slog.Logger) gates {
	gate := func(name string) *admit.Gate {
		return admit.NewGate(admit.Options{Name: name, Proxies: proxies, Logger: log})
	}
	return gates{api: gate("api"), s3: gate("s3"), nbd: gate("nbd")}
}

// registerGateMetrics shows the connections of the listeners.
func registerGateMetrics(r *prometheus.Registry, g gates) {
	for name, gate := range map[string]*admit.Gate{"api": g.api, "s3": g.s3, "nbd": g.nbd} {
		labels := prometheus.Labels{"listener": name}
		r.MustRegister(
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "quickims_connections_strangers", Help: "Open connections whose clients have not shown valid credentials.", ConstLabels: labels},
				func() float64 { n, _, _ := gate.Count(); return float64(n) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "quickims_connections_known", Help: "Open connections whose clients have shown valid credentials.", ConstLabels: labels},
				func() float64 { _, n, _ := gate.Count(); return float64(n) }),
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "quickims_connections_evicted_total", Help: "Connections without credentials closed because there were too many.", ConstLabels: labels},
				func() float64 { _, _, n := gate.Count(); return float64(n) }),
		)
	}
}
