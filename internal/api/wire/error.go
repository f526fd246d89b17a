package wire

// Error is the one form in which a client reads of a fault.
type Error struct {
	Error struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		// Details names the field, file or limit at fault.
		Details string `json:"details,omitempty"`
	} `json:"error"`
}
