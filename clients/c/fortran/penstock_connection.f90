! All calls of the module penstock but send.
module penstock_connection
  use, intrinsic :: iso_c_binding
  use, intrinsic :: iso_fortran_env, only: error_unit
  use penstock_c
  implicit none
  private
  public :: connection, penstock_field, send_any

  integer, parameter, public :: PENSTOCK_OK = 0, PENSTOCK_BAD_ARGUMENT = 1, PENSTOCK_NO_CONNECTION = 2, &
      PENSTOCK_BAD_MESSAGE = 3, PENSTOCK_REFUSED = 4, PENSTOCK_ABANDONED = 5, PENSTOCK_SERVER_LOST = 6, &
      PENSTOCK_NO_MEMORY = 7
  integer, parameter, public :: PENSTOCK_FLOAT32 = 1, PENSTOCK_FLOAT64 = 2, PENSTOCK_INT32 = 3, PENSTOCK_INT64 = 4
  integer, parameter, public :: PENSTOCK_STATIC_STEP = -1
  character(len=*), parameter :: not_connected = &
      "this client is not connected: call connect first; finish, fail and close end the connection"

  ! A field that the solver announces; made by penstock_field(name, dtype, shape, components, is_static). `shape` is the
  ! shape of the whole field over all ranks.
  type :: penstock_field
    character(len=255) :: name = ""
    integer :: dtype = PENSTOCK_FLOAT64
    integer :: n_dimensions = 0
    integer(c_int64_t) :: shape(8) = 1
    integer :: components = 1
    logical :: is_static = .false.
  end type penstock_field

  interface penstock_field
    module procedure make_field
  end interface penstock_field

  ! One connection to the server. A copy refers to the same connection.
  type :: connection
    private
    type(c_ptr) :: handle = c_null_ptr
  contains
    procedure :: connect       ! connect, and take the simulation this process was started for
    procedure :: simulation    ! id of the simulation
    procedure :: attempt       ! its attempt number, from 1
    procedure :: is_validation ! whether it is held out for validation
    procedure :: parameter     ! the value of a parameter, by its name in the study file
    procedure :: announce      ! announce the fields; later calls number them from 1
    procedure :: indices       ! list the points (from 1) of a field that this rank holds, where not contiguous
    procedure :: wanted        ! .false. for a static field that the server already has
    procedure :: step_sent     ! mark a time step as complete, after all its pieces
    procedure :: flush         ! send now what is held back to travel with later pieces
    procedure :: finish        ! wait until the server has processed all, report the simulation finished, and close
    procedure :: fail          ! report the simulation failed instead, and close
    procedure :: close         ! close without a word on the simulation; the server hands it out again
    procedure :: error_text    ! description of the last failure
  end type connection

contains

  function make_field(name, dtype, shape, components, is_static) result(field)
    character(len=*), intent(in) :: name
    integer, intent(in) :: dtype, shape(:)
    integer, intent(in), optional :: components
    logical, intent(in), optional :: is_static
    type(penstock_field) :: field
    integer :: d
    if (size(shape) > 8 .or. len(name) > 254) error stop "penstock_field: at most 8 dimensions and 254 characters"
    field%name = name
    field%dtype = dtype
    field%n_dimensions = size(shape)
    do d = 1, size(shape)
      field%shape(d) = shape(d)
    end do
    if (present(components)) field%components = components
    if (present(is_static)) field%is_static = is_static
  end function make_field

  ! connect_file: path of connect.json; default: the value of PENSTOCK_CONNECT.
  subroutine connect(self, rank, ranks, connect_file, status)
    class(connection), intent(inout) :: self
    integer, intent(in) :: rank, ranks
    character(len=*), intent(in), optional :: connect_file
    integer, intent(out), optional :: status
    character(kind=c_char, len=:), allocatable, target :: path
    type(c_ptr) :: file
    integer :: outcome
    file = c_null_ptr
    if (present(connect_file)) then
      path = connect_file // c_null_char
      file = c_loc(path)
    end if
    if (c_associated(self%handle)) call c_close(self%handle) ! connected before
    outcome = c_connect(self%handle, file, int(rank, c_int32_t), int(ranks, c_int32_t))
    if (outcome == PENSTOCK_OK) outcome = c_begin(self%handle)
    call settle(self, outcome, status)
  end subroutine connect

  function simulation(self) result(id)
    class(connection), intent(in) :: self
    integer(c_int64_t) :: id
    id = -1
    if (c_associated(self%handle)) id = c_simulation(self%handle)
  end function simulation

  function attempt(self) result(number)
    class(connection), intent(in) :: self
    integer(c_int32_t) :: number
    number = 0
    if (c_associated(self%handle)) number = c_attempt(self%handle)
  end function attempt

  function is_validation(self) result(held_out)
    class(connection), intent(in) :: self
    logical :: held_out
    held_out = .false.
    if (c_associated(self%handle)) held_out = c_is_validation(self%handle) /= 0
  end function is_validation

  ! Ends the program if the study has no parameter of this name.
  function parameter(self, name) result(value)
    class(connection), intent(in) :: self
    character(len=*), intent(in) :: name
    real(c_double) :: value
    type(c_ptr) :: names, values
    type(c_ptr), pointer :: each_name(:)
    real(c_double), pointer :: each_value(:)
    integer(c_size_t) :: number, i
    if (.not. c_associated(self%handle)) call give_up(self, not_connected)
    number = c_parameters(self%handle, names, values)
    if (number > 0) then
      call c_f_pointer(names, each_name, [number])
      call c_f_pointer(values, each_value, [number])
      do i = 1, number
        if (text_at(each_name(i)) == name) then
          value = each_value(i)
          return
        end if
      end do
    end if
    call give_up(self, "the study has no parameter " // name)
    value = 0
  end function parameter

  subroutine announce(self, fields, status)
    class(connection), intent(inout) :: self
    type(penstock_field), intent(in) :: fields(:)
    integer, intent(out), optional :: status
    type(c_field) :: announced(size(fields))
    character(kind=c_char, len=256), target :: names(size(fields))
    integer(c_int64_t), target :: shapes(8, size(fields))
    integer :: i, n
    if (.not. usable(self, status)) return
    do i = 1, size(fields)
      n = fields(i)%n_dimensions
      names(i) = trim(fields(i)%name) // c_null_char
      shapes(:n, i) = fields(i)%shape(n:1:-1)
      announced(i) = c_field(c_loc(names(i)), int(fields(i)%dtype, c_int), int(fields(i)%components, c_int32_t), &
          int(n, c_int32_t), c_loc(shapes(1, i)), merge(1_c_int, 0_c_int, fields(i)%is_static))
    end do
    call settle(self, c_announce(self%handle, announced, size(fields, kind=c_size_t)), status)
  end subroutine announce

  subroutine indices(self, field, points, status)
    class(connection), intent(inout) :: self
    integer, intent(in) :: field
    integer(c_int64_t), intent(in) :: points(:)
    integer, intent(out), optional :: status
    if (.not. usable(self, status)) return
    call settle(self, c_indices(self%handle, int(field - 1, c_size_t), points - 1, size(points, kind=c_int64_t)), status)
  end subroutine indices

  function wanted(self, field) result(needed)
    class(connection), intent(in) :: self
    integer, intent(in) :: field
    logical :: needed
    needed = .false.
    if (c_associated(self%handle)) needed = c_wanted(self%handle, int(field - 1, c_size_t)) /= 0
  end function wanted

  subroutine step_sent(self, status)
    class(connection), intent(inout) :: self
    integer, intent(out), optional :: status
    if (.not. usable(self, status)) return
    call settle(self, c_step_sent(self%handle), status)
  end subroutine step_sent

  subroutine flush(self, status)
    class(connection), intent(inout) :: self
    integer, intent(out), optional :: status
    if (.not. usable(self, status)) return
    call settle(self, c_flush(self%handle), status)
  end subroutine flush

  subroutine finish(self, status)
    class(connection), intent(inout) :: self
    integer, intent(out), optional :: status
    integer :: outcome
    if (.not. usable(self, status)) return
    outcome = c_finish(self%handle)
    call settle(self, outcome, status)
    if (outcome /= PENSTOCK_OK) return ! keep the handle for error_text; `fail` closes it
    call self%close()
  end subroutine finish

  subroutine fail(self, message)
    class(connection), intent(inout) :: self
    character(len=*), intent(in) :: message
    integer :: ignored
    if (self%simulation() >= 0) ignored = c_fail(self%handle, message // c_null_char)
    call self%close()
  end subroutine fail

  subroutine close(self)
    class(connection), intent(inout) :: self
    if (c_associated(self%handle)) call c_close(self%handle)
    self%handle = c_null_ptr
  end subroutine close

  function error_text(self) result(text)
    class(connection), intent(in) :: self
    character(len=:), allocatable :: text
    text = not_connected
    if (c_associated(self%handle)) text = text_at(c_error(self%handle))
  end function error_text

  function text_at(address) result(text)
    type(c_ptr), intent(in) :: address
    character(len=:), allocatable :: text
    character(kind=c_char), pointer :: characters(:)
    integer :: i
    call c_f_pointer(address, characters, [c_strlen(address)])
    allocate (character(len=size(characters)) :: text)
    do i = 1, size(characters)
      text(i:i) = characters(i)
    end do
  end function text_at

  ! Whether there is a connection; if not, this is the failure of the call.
  function usable(self, status) result(connected)
    class(connection), intent(in) :: self
    integer, intent(out), optional :: status
    logical :: connected
    connected = c_associated(self%handle)
    if (.not. connected) call settle(self, PENSTOCK_BAD_ARGUMENT, status)
  end function usable

  subroutine settle(self, outcome, status)
    class(connection), intent(in) :: self
    integer, intent(in) :: outcome
    integer, intent(out), optional :: status
    if (present(status)) then
      status = outcome
    else if (outcome /= PENSTOCK_OK) then
      call give_up(self, error_text(self))
    end if
  end subroutine settle

  ! An MPI launcher ends all ranks when one ends this way.
  subroutine give_up(self, message)
    class(connection), intent(in) :: self
    character(len=*), intent(in) :: message
    type(connection) :: this
    write (error_unit, "(2a)") "penstock: ", message
    this%handle = self%handle
    call this%fail(message)
    error stop 1
  end subroutine give_up

  subroutine send_any(self, field, step, time, dtype, values, number, offset, status)
    class(connection), intent(inout) :: self
    integer, intent(in) :: field, step, dtype
    real(c_double), intent(in) :: time
    type(c_ptr), intent(in) :: values
    integer(c_int64_t), intent(in) :: number
    integer(c_int64_t), intent(in), optional :: offset
    integer, intent(out), optional :: status
    integer(c_int64_t) :: first
    if (.not. usable(self, status)) return
    first = 0
    if (present(offset)) first = offset
    call settle(self, c_send(self%handle, int(field - 1, c_size_t), int(step, c_int64_t), time, int(dtype, c_int), &
        values, first, number), status)
  end subroutine send_any
end module penstock_connection
